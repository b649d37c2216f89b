"""The first and the last keys of the context."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class SinkAndRecent(ScoringEvictor):
    """Keep the first keys, and the last ones within the rest of the budget.

    StreamingLLM (arXiv:2309.17453) for a context that is prefilled with dense attention. As in
    kvpress, keys keep their positions, while the paper rotates them to their place in the cache.
    """

    sinks: int = 4
    """Keys at the beginning that stay; 4 as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sinks < 0:
            raise ValueError(f"SinkAndRecent: sinks must be at least 0, got {self.sinks}")

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the position, and more than that for the sinks."""
        position = torch.arange(layer.length, device=layer.key.device, dtype=torch.float32)
        position[: self.sinks] = layer.length
        return position.expand(layer.key.shape[:3])
