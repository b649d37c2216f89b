"""Workers that any scheduler runs: each claims what is left of a sweep until nothing is left."""
