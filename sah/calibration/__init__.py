"""Fitting methods to a model: DoubleSparsity's channel rankings and HashAttention's networks."""
