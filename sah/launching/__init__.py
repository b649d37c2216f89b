"""Sweeps: what is to be run, where it runs, and what became of it. Used by the Hydra plugins."""
