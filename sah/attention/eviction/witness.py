"""What is remembered of a context's prefill for the evictors; remembering changes no output."""

# B batch, H query heads, G key-value heads, W last queries, K keys, D head dimension

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from sah.attention.eviction.attention_calls import AttentionCall
from sah.attention.eviction.reconstruction import Reconstruction
from sah.attention.eviction.rotary import FutureQueries, Moments, Rotary


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What an evictor needs of the prefill, besides keys and values.

    The arms of a job share one prefill, which remembers what any of them needs.
    """

    last_queries: int = 0
    """Number of queries at the end of the context."""
    received: bool = False
    """The attention that each key received from all queries of the context."""
    future: frozenset[FutureQueries] = frozenset()
    """Moments of the queries to come, each by how they are estimated."""
    rotary: bool = False
    """The rotary embedding, to undo it on keys."""
    calls: bool = False
    """What each attention layer is called with; their hidden states stay in memory."""
    reconstructions: frozenset[Reconstruction] = frozenset()
    """Passes in which the model repeats the context, after the prefill."""

    def __or__(self, other: "Witness") -> "Witness":
        """Return what both need together."""
        return Witness(
            last_queries=max(self.last_queries, other.last_queries),
            received=self.received or other.received,
            future=self.future | other.future,
            rotary=self.rotary or other.rotary,
            calls=self.calls or other.calls,
            reconstructions=self.reconstructions | other.reconstructions,
        )


@dataclass(frozen=True, kw_only=True)
class Witnessed:
    """What one layer's prefill left behind."""

    module: nn.Module
    """The layer's attention module of transformers."""
    key_shape: tuple[int, int]
    """Heads and dimension of the keys that the attention function reads."""
    scaling: float
    softcap: float | None
    sinks: Float[Tensor, " H"] | None
    queries: Float[Tensor, "B H W D"]
    """The last queries, as many as asked for, or all if there are fewer."""
    received: Float[Tensor, "B H K"] | None = None
    """Sum over the queries of the attention weight of each key; None if it was not asked for."""
    unrotated: Mapping[FutureQueries, Moments] = field(default_factory=dict)
    """Moments of the context's own queries that count, before the rotary embedding."""
    future: Mapping[FutureQueries, Moments] = field(default_factory=dict)
    """What was asked for; empty if the layer's rotary embedding is unknown."""
    rotary: Rotary | None = None
    """None if it was not asked for, or is unknown."""
    call: AttentionCall | None = None
    """None if it was not asked for, or the layer reads no hidden states."""
