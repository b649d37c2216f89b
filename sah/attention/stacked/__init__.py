"""Attention of the rows of a batch together, each with a sequence of its own length."""
