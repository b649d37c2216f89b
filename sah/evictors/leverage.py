"""Keys that the other keys do not span: statistical leverage."""

# B batch, G key-value heads, K keys, D head dimension, R dimensions of the sketch

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor

_RIDGE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Leverage(ScoringEvictor):
    """Keep the keys with the highest leverage scores (Compactor, arXiv:2507.08143).

    The diagonal of X (XᵀX + λI)⁻¹ Xᵀ, where X holds the centred keys before the rotary embedding,
    projected to a few random dimensions; the seed is the experiment's. One of Compactor's two
    scores; the other one is attention without a causal mask. kvpress (LeverageScore) standardises
    the scores over the layer, which changes no order.
    """

    sketch: int = 48
    """Dimensions of the random projection; 48 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sketch < 1:
            raise ValueError(f"Leverage: sketch must be at least 1, got {self.sketch}")

    @property
    def witness(self) -> Witness:
        """The rotary embedding."""
        return Witness(rotary=True)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the leverage scores, in [0, 1]."""
        key = layer.unrotated_key()
        shape = (*key.shape[:2], key.shape[-1], self.sketch)
        generator = torch.Generator(key.device).manual_seed(layer.seed)
        sketch = torch.randn(shape, generator=generator, device=key.device) / self.sketch**0.5
        projected = (key - key.mean(2, keepdim=True)) @ sketch  # B G K R
        # In float32 the ridge vanishes beside long keys, and few keys have a singular matrix.
        projected = projected.double()
        gram = projected.transpose(2, 3) @ projected
        root = torch.linalg.cholesky(gram + _RIDGE * torch.eye(self.sketch, device=key.device))
        solved = torch.cholesky_solve(projected.transpose(2, 3), root)  # B G R K
        scores: Tensor = (projected * solved.transpose(2, 3)).sum(-1)
        return scores.float().clamp(min=0)
