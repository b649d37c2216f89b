"""Keys that the last queries of the context attend to, smoothed over their neighbours."""

# B batch, H query heads, G key-value heads, W window queries, K keys

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor, recent_first


@dataclass(frozen=True, kw_only=True)
class SnapKV(ScoringEvictor):
    """Keep the keys that the last queries attend to (SnapKV, arXiv:2404.14469).

    As in kvpress, the attention is averaged over a key-value head's query heads, and each
    key-value head selects for itself. The window's own keys come first; a budget smaller than the
    window keeps the last of them.
    """

    window: int = 64
    """Queries at the end of the context that vote; 64 as in kvpress."""
    kernel: int = 5
    """Neighbours over which votes are averaged; odd."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"{type(self).__name__}: window must be at least 1, got {self.window}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"{type(self).__name__}: kernel must be odd and at least 1, got {self.kernel}"
            )

    @property
    def witness(self) -> Witness:
        """The window's queries."""
        return Witness(last_queries=self.window)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the pooled mean attention of the window; more than that for its own keys."""
        window = min(self.window, layer.length)
        votes = layer.window_attention(window)[..., : layer.length - window].mean(2)  # B H K-W
        if votes.shape[-1]:
            votes = avg_pool1d(votes, self.kernel, stride=1, padding=self.kernel // 2)
        votes = layer.mean_over_group(votes)
        own = recent_first(window, votes.device).expand(*votes.shape[:2], -1)
        return torch.cat([votes, own], dim=-1)
