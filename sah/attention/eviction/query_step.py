"""One query after the context, as evictors that work while decoding see it."""

# B batch, H query heads, G key-value heads, R rows held so far, N kept rows of the context,
# D/V dimensions

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from sah.attention.eviction.received import softmax_beside_sinks
from sah.attention.inputs import AttentionInputs
from sah.attention.selection import select_top


@dataclass(frozen=True, kw_only=True)
class HeldKeys:
    """The keys that a layer holds at one point of an answer, and what its evictor remembers."""

    alive: Bool[Tensor, "B G R"]
    """False for evicted keys. Rows: those kept of the context, then every later key."""
    memory: tuple[Tensor, ...] = ()
    """Running sums, last queries and the like."""


@dataclass(frozen=True, kw_only=True)
class QueryStep:
    """One query that has been read, with the keys that it could read; its own is the last row."""

    inputs: AttentionInputs
    """Of this query alone; `visible` is false for evicted keys."""
    module: nn.Module
    """The layer's attention module of transformers."""
    layers: int
    """Number of layers of the model."""

    @property
    def context(self) -> int:
        """Keys of the context, evicted ones included."""
        kept = self.inputs.kept
        assert kept is not None
        return kept.key.shape[2]

    @property
    def after_context(self) -> int:
        """Number of queries after the context so far, this one included."""
        kept = self.inputs.kept
        assert kept is not None
        return self.inputs.key.shape[2] - kept.rows

    @property
    def positions(self) -> Int[Tensor, "B G R"]:
        """Position of each row in the sequence."""
        kept = self.inputs.kept
        assert kept is not None
        later = torch.arange(self.after_context, device=kept.position.device) + self.context
        return torch.cat([kept.position, later.expand(*kept.position.shape[:2], -1)], dim=-1)

    @cached_property
    def weights(self) -> Float[Tensor, "B H R"]:
        """Attention weights of the query over all keys that the layer holds, in float32.

        Also where maskers let it read fewer. Soft-capped like the model's scores, and without the
        share of its attention sinks.
        """
        scores = self.inputs.scores.masked_fill(~self.inputs.visible, -torch.inf)
        return softmax_beside_sinks(scores, self.inputs.sinks).squeeze(2)

    def mean_over_group(self, per_head: Shaped[Tensor, "B H R"]) -> Shaped[Tensor, "B G R"]:
        """Average over the query heads of each key-value head."""
        mean: Tensor = per_head.unflatten(1, (self.inputs.key.shape[1], -1)).mean(2)
        return mean

    def best(
        self, held: HeldKeys, scores: Float[Tensor, "#B #G R"], budget: int
    ) -> Bool[Tensor, "B G R"]:
        """Return the `budget` keys with the highest scores among those that each head holds."""
        if held.alive.shape[-1] <= budget:
            return held.alive
        scores = scores.expand(held.alive.shape).float().unsqueeze(2)
        limit = torch.full((1, 1, 1, 1), budget, device=scores.device)
        return select_top(scores, held.alive.unsqueeze(2), limit, budget).squeeze(2)
