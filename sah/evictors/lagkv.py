"""Keys and values that stand out against the next partition of the context."""

# B batch, G key-value heads, N partitions, M = N - 1 of them, L keys of a partition, K keys,
# P = N · L, D dimension

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import ScoringEvictor, recent_first


@dataclass(frozen=True, kw_only=True)
class LagKV(ScoringEvictor):
    """Keep the keys that stand out against the next partition (LagKV, arXiv:2504.04704).

    The context after the sinks is cut into partitions; keys and values of each are normalised by
    the range of the next one. Sinks and everything from the last whole partition on come first.
    As in kvpress, keys are ranked within their partition, so that each keeps the same number, and
    a context of fewer than two partitions keeps its sinks and its last keys.
    """

    sinks: int = 4
    """Keys at the beginning that stay; 4 as in kvpress."""
    partition: int = 128
    """Keys of a partition; 128 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sinks < 0:
            raise ValueError(f"LagKV: sinks must be at least 0, got {self.sinks}")
        if self.partition < 1:
            raise ValueError(f"LagKV: partition must be at least 1, got {self.partition}")

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the share of its partition that a key surpasses; more for sinks and the tail."""
        partitions = max(1, (layer.length - self.sinks) // self.partition)
        ranked = self.sinks + (partitions - 1) * self.partition
        scores = recent_first(layer.length, layer.key.device).repeat(*layer.key.shape[:2], 1)
        scores[..., : self.sinks] = 3.0  # B G K
        if partitions > 1:
            end = ranked + self.partition
            lag = [
                self._deviation(part[:, :, self.sinks : end]) for part in (layer.key, layer.value)
            ]
            rank = (lag[0] + lag[1]).argsort(stable=True).argsort()  # B G M L
            scores[..., self.sinks : ranked] = (rank / self.partition).flatten(2)
        return scores

    def _deviation(self, states: Float[Tensor, "B G P D"]) -> Float[Tensor, "B G M L"]:
        parts = states.float().unflatten(2, (-1, self.partition))  # B G N L D
        low, high = parts[:, :, 1:].aminmax(dim=3, keepdim=True)
        scale = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        deviation: Tensor = ((parts[:, :, :-1] - low) / scale).std(-1)
        return deviation.softmax(-1)
