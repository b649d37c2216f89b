"""Complete experiments, read back: found, chosen, ordered, and with their answers."""
