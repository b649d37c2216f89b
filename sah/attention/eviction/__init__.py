"""Which keys of a context stay in the cache, and what they hold: what methods see and return."""
