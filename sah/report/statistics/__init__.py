"""Estimates, intervals, and comparisons with a baseline."""
