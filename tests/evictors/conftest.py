"""Fixtures of context layers."""

from context_layers import context_layers, layers_of, made_layer

import hydra_plugins.sah.config  # noqa: F401

__all__ = ["context_layers", "layers_of", "made_layer"]
