"""Sweeps: planning cells, running their jobs, and their outcomes. Used by the Hydra plugins."""
