"""What goes wrong in a sweep, looked for in seconds before it."""
