"""H2O while decoding: heavy hitters by the attention received so far, and recent keys."""

# B batch, H query heads, G key-value heads, C keys of the context, R rows

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.evictors.h2o import H2O


@dataclass(frozen=True, kw_only=True)
class H2ODecoding(H2O):
    """Keep recent keys, and those that received the most attention (H2O, arXiv:2306.14048).

    Attention is summed over all queries so far, and averaged over a key-value head's query heads.
    After every query, the key with the least sum that is not among the recent ones goes. The
    context is read by dense attention and ranked once, at its end, by the same sums.
    """

    batched: ClassVar = True

    recent: float = 0.5
    """Share of the budget for the last keys of the sequence, rounded down; 0.5 as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.recent <= 1:
            raise ValueError(f"H2ODecoding: recent must be in [0, 1], got {self.recent}")

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G C"]:
        """Return the sums; infinite for the recent keys."""
        sums = _received(layer)
        first = layer.length - self._recent_keys(self.budget(layer))
        recent = torch.full_like(sums[..., first:], torch.inf)
        return torch.cat([sums[..., :first], recent], dim=-1)

    def begin(self, layer: ContextLayer, kept: KeptKeys) -> tuple[Tensor, ...]:
        """Remember the sums of the kept keys."""
        return (_received(layer).gather(-1, kept.position),)

    def after_query(self, held: HeldKeys, step: QueryStep) -> HeldKeys:
        """Add this query's weights, and drop the key with the least sum above the budget."""
        weights = step.mean_over_group(step.weights)  # B G R; 0 beyond a sequence's end
        before = held.memory[0] if held.memory else weights[..., :0]
        sums = pad(before, (0, weights.shape[-1] - before.shape[-1])) + weights
        budgets = [self.capacity(context) for context in step.contexts]
        is_recent = step.last([self._recent_keys(budget) for budget in budgets])
        alive = step.best(held, sums.masked_fill(is_recent, torch.inf), budgets)
        return HeldKeys(alive=alive, memory=(sums,))

    def _recent_keys(self, budget: int) -> int:
        return int(budget * self.recent + 1e-9)


def _received(layer: ContextLayer) -> Float[Tensor, "B G C"]:
    received = layer.witnessed.received
    assert received is not None, "the evictor's witness asks for received attention"
    return layer.mean_over_group(received)
