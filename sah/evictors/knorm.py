"""Keys with the smallest norms."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class KNorm(ScoringEvictor):
    """Keep the keys with the smallest L2 norms (arXiv:2406.11430)."""

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the negated norms, in float32."""
        norm: Tensor = torch.linalg.vector_norm(layer.key, dim=-1, dtype=torch.float32)
        return -norm
