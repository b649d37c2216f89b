"""One budget for all heads of a layer."""

# B batch, G key-value heads, K keys

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import keep_best
from sah.evictors.wrappers.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class AdaKV(Wrapper):
    """Keep the best keys of all heads of a layer together (AdaKV, arXiv:2407.11550).

    Heads keep different numbers of keys, whose mean is the budget. Of each head's budget a share
    is safe. As in kvpress, heads compete by their scores as they are; there, an evicted key is
    replaced by one that gets no attention, while here it leaves the cache.
    """

    safe: float = 0.2
    """Share of the budget that each head keeps in any case, at least one key; 0.2 as in both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.safe <= 1:
            raise ValueError(f"AdaKV: safe must be in [0, 1], got {self.safe}")

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        scores, budget = self.scores(layer).float(), self.budget(layer)
        safe = keep_best(scores, max(1, int(budget * self.safe)))
        # Before everything else, keys of infinite score included.
        ranked = scores.clamp(max=torch.finfo(torch.float32).max).masked_fill(safe, torch.inf)
        together = ranked.flatten(1).unsqueeze(1)  # B 1 GK
        return keep_best(together, budget * layer.groups).view_as(safe)
