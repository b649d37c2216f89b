"""Patterns of sparse prefill: what the context's own queries read, one file a method."""
