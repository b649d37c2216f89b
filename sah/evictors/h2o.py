"""Keys that received the most attention from all queries of the context."""

# B batch, H query heads, G key-value heads, K keys

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class H2O(ScoringEvictor):
    """Keep the heavy hitters: keys with the highest mean attention (H2O, arXiv:2306.14048).

    As in kvpress (ObservedAttention), the attention that a key received is divided by the number
    of queries that could see it, and averaged over a key-value head's query heads. The paper takes
    the plain sum, keeps as many recent keys as heavy hitters, and goes on evicting while decoding.
    """

    @property
    def witness(self) -> Witness:
        """The attention that each key received."""
        return Witness(received=True)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the mean attention over the queries that could see the key."""
        received = layer.witnessed.received
        assert received is not None, "the evictor's witness asks for received attention"
        seen_by = torch.arange(layer.length, 0, -1, device=received.device)
        return layer.mean_over_group(received / seen_by)
