"""Scores times what a value adds to the layer's output."""

# B batch, G key-value heads, K keys

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import keep_best
from sah.evictors.wrappers.projection import projected_norms
from sah.evictors.wrappers.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class CriticalKV(Wrapper):
    """Weigh half of the choice by the values' projected norms (CriticalKV, arXiv:2502.03805).

    The first half of the budget goes to the best scores. The rest goes to the highest products of
    score + epsilon and ‖W_o v‖₁, averaged over a key-value head's query heads. As in kvpress.
    """

    first: float = 0.5
    """Share of the budget that goes to the best scores; 0.5 as in the paper."""
    epsilon: float = 1e-4
    """Added to the scores; 1e-4 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.first <= 1:
            raise ValueError(f"CriticalKV: first must be in [0, 1], got {self.first}")

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the products; infinite for the keys of the first half."""
        scores = self.of.scores(layer).float()
        weighted = (scores + self.epsilon) * projected_norms(layer)
        if self.first == 0:
            return weighted
        best = keep_best(scores, max(1, int(self.budget(layer) * self.first)))
        return weighted.masked_fill(best, torch.inf)
