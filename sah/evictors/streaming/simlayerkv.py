"""Whole layers that read only the first and the last keys."""

# B batch, H query heads, G key-value heads, K keys

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.evictors.streaming.ends import first_and_last


@dataclass(frozen=True, kw_only=True)
class SimLayerKV:
    """Keep only first and recent keys in lazy layers, and all keys in the others.

    A layer is lazy if its last queries give these keys more than `threshold` of their attention
    (SimLayerKV, arXiv:2410.13846). It has no budget: how much stays depends on the model.
    kvpress leaves the queries' own keys out of that sum, and keeps one recent key fewer.
    """

    budget_options: ClassVar = ("threshold",)

    threshold: float
    """Mean attention over heads and queries, in [0, 1]. kvpress recommends 0.9 for Llama 3, 0.65
    for Llama 2, 0.8 for Mistral and 0.85 for Qwen."""
    sinks: int = 4
    """First keys that a lazy layer keeps; 4 as in the paper."""
    recent: int = 1024
    """Last keys that a lazy layer keeps; 1,024 as in the paper."""
    window: int = 1
    """Queries at the end of the context that decide; 1 as in kvpress."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"SimLayerKV: threshold must be in [0, 1], got {self.threshold}")
        for name, least in (("sinks", 0), ("recent", 1), ("window", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"SimLayerKV: {name} must be at least {least}, got {value}")

    @property
    def witness(self) -> Witness:
        """The last queries."""
        return Witness(last_queries=self.window)

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay, the same ones in every head."""
        ends = first_and_last(layer, self.sinks, self.recent)
        attention = layer.window_attention(self.window).mean((1, 2))  # B K
        is_lazy = (attention * ends).sum(-1) > self.threshold
        stays: Tensor = ends | ~is_lazy.view(-1, 1, 1)  # B 1 K
        return stays.expand(-1, layer.groups, -1).clone()
