"""Parsing and checking command lines."""
