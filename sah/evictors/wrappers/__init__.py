"""Evictors that spend the budget, or weigh the scores, of another one differently."""
