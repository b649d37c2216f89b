"""Sparse prefill: which keys the context's own queries read."""
