"""Code that several maskers share."""
