"""Fixtures of context layers."""

from context_layers import context_layers, layers_of, made_layer

__all__ = ["context_layers", "layers_of", "made_layer"]
