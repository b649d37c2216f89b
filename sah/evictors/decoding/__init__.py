"""Evictors that also drop keys after the context: of the question and the answer, too."""
