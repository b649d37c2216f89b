"""Which keys of a context stay in the cache: what evictors see, and what a layer keeps."""
