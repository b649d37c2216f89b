"""Evictors: which keys of a context stay in the cache; one file a method."""
