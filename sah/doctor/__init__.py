"""Checks that find in seconds what would go wrong in a sweep."""
