"""Models that are trained with sparse attention: their own indexer."""
