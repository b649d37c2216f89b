"""Fitting methods to a model: channel rankings of DoubleSparsity, networks of HashAttention."""
