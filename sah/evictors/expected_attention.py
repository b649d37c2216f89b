"""Keys that the queries to come are expected to attend to."""

# B batch, H query heads, G key-value heads, K keys, D head dimension

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.rotary import FutureQueries
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(ScoringEvictor):
    """Keep the keys that future queries are expected to attend to (arXiv:2510.00636).

    Future queries are normally distributed, with the moments of the context's queries at the next
    positions: E[exp(q·k·s)] = exp(μ·k·s + kᵀΣk·s²/2) with the model's scaling s. Its softmax over
    the keys, averaged over the query heads, is multiplied by the norm of the value. As in kvpress.
    """

    sinks: int = 4
    """Keys at the beginning that stay, and whose queries do not count; 4 as in kvpress."""
    future: int = 512
    """Positions after the context over which the rotation is averaged; 512 as in kvpress."""
    weigh_by_value: bool = True
    """Multiply by the norms of the values."""
    epsilon: float = 0.0
    """Added before that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sinks < 0 or self.future < 1 or self.epsilon < 0:
            given = f"sinks={self.sinks}, epsilon={self.epsilon} and future={self.future}"
            raise ValueError(f"ExpectedAttention: {given} must be at least 0, 0 and 1")

    @property
    def witness(self) -> Witness:
        """Moments of the future queries."""
        return Witness(future=frozenset({FutureQueries(skip=self.sinks, positions=self.future)}))

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the expected attention; infinite for the sinks."""
        moments, scaling = layer.future(*self.witness.future), layer.witnessed.scaling
        keys, value = (part[:, :, self.sinks :].float() for part in (layer.key, layer.value))
        expected = []
        for head, mean in enumerate(moments.mean.unbind(1)):
            key = keys[:, head * layer.groups // moments.mean.shape[1]]  # B K D
            spread = (key @ moments.covariance[:, head] * key).sum(-1)  # B K
            exponent = (key @ mean.unsqueeze(-1)).squeeze(-1) * scaling + spread * scaling**2 / 2
            expected.append(exponent.softmax(-1))
        scores = layer.mean_over_group(torch.stack(expected, dim=1))
        if self.weigh_by_value:
            scores = (scores + self.epsilon) * value.norm(dim=-1)
        sinks = scores.new_full((*scores.shape[:2], layer.length - value.shape[2]), torch.inf)
        return torch.cat([sinks, scores], dim=-1)
