"""What `sah help` shows: the overview, options, groups and keys."""
