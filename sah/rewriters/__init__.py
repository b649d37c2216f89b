"""Rewriters: what kept keys and values hold; one file a method."""
