"""Evictors that keep only first and recent keys in some layers or heads, and all in others."""
