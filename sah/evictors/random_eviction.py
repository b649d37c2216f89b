"""Random keys: the floor under every evictor."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class RandomEviction(ScoringEvictor):
    """Keep keys drawn uniformly, independently in each head; the seed is the experiment's."""

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return one number in [0, 1) per key."""
        generator = torch.Generator(layer.key.device).manual_seed(layer.seed)
        return torch.rand(layer.key.shape[:3], generator=generator, device=layer.key.device)
