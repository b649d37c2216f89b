"""Keys that the last query of the context attends to, the same ones in every head."""

# B batch, H query heads, G key-value heads, K keys

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor, recent_first


@dataclass(frozen=True, kw_only=True)
class TOVA(ScoringEvictor):
    """Keep the keys that the last query attends to (TOVA, arXiv:2401.06104).

    The attention is averaged over all heads of the layer, which keep the same keys. The paper
    evicts one key per token while it reads and decodes; here, as in kvpress, the keys of the
    context are ranked once, at its end, and the last one stays.
    """

    @property
    def witness(self) -> Witness:
        """The last query."""
        return Witness(last_queries=1)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the last query's mean attention; more than that for the last key."""
        votes = layer.window_attention(1)[:, :, 0, :-1].mean(1, keepdim=True)  # B 1 K-1
        last = recent_first(1, votes.device).expand(votes.shape[0], 1, 1)
        return torch.cat([votes, last], dim=-1).expand(-1, layer.groups, -1)
