"""The protocol of evictors."""

# B batch, G key-value heads, K keys

from typing import Protocol

from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness


class Evictor(Protocol):
    """Chooses which keys of a context stay in the cache, layer by layer and for each head.

    Keys keep their positions. Every later query reads what stays, and everything after the
    context.
    """

    @property
    def witness(self) -> Witness:
        """What it needs of the prefill, besides keys and values."""

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay, at least one in each head."""
