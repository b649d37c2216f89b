"""The keys that a streaming head or a lazy layer keeps."""

# K keys

import torch
from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer


def first_and_last(layer: ContextLayer, first: int, last: int) -> Bool[Tensor, " K"]:
    """Return which keys are among the first or the last ones of the context."""
    position = torch.arange(layer.length, device=layer.key.device)
    return (position < first) | (position >= layer.length - last)
