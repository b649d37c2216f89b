"""Scorers of kvpress, and users' own ones with its interface, as evictors."""
