"""Benchmarks, and the scorers of their answers."""
