"""R-KV: keys that recent queries attend to, and that do not repeat other keys."""

# B batch, H query heads, G key-value heads, W window queries, K keys, D head dimension

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool1d, normalize

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.evictors.decoding.rescoring import last_queries, require_every, rescored
from sah.evictors.scoring import recent_first
from sah.evictors.snapkv import SnapKV


@dataclass(frozen=True, kw_only=True)
class RKV(SnapKV):
    """Keep important keys that are not redundant (R-KV, arXiv:2505.24133).

    The score is mix · importance − (1 − mix) · redundancy. Importance is the mean attention of the
    last queries, max-pooled over neighbours; redundancy is the softmax of a key's mean cosine
    similarity to the other keys. Keys are scored at the context's end, and again after every
    `every` queries. The authors' code takes the maximum of the logits over a key-value head's
    query heads, here it is the mean of their attention; it leaves the window out of the softmax;
    and it does not count each key's similarity to the latest key that is similar to it.
    """

    batched: ClassVar = True

    window: int = 8
    """Queries that vote; 8 as in the authors' code."""
    kernel: int = 7
    """Neighbours over which the maximum is taken; odd, 7 as in the authors' code."""
    mix: float = 0.1
    """Weight of the importance, λ; 0.1 as in the paper."""
    every: int = 128
    """Queries between two evictions; 128 as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_every("RKV", self.every)
        if not 0 <= self.mix <= 1:
            raise ValueError(f"RKV: mix must be in [0, 1], got {self.mix}")

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the scores; more than any of them for the window's own keys."""
        window = min(self.window, layer.length)
        earlier = layer.length - window
        votes = layer.window_attention(window)[..., :earlier].mean(2)  # B H K-W
        if earlier:
            votes = max_pool1d(votes, self.kernel, stride=1, padding=self.kernel // 2)
        importance = layer.mean_over_group(votes)
        redundancy = mean_similarity(layer.key).softmax(-1)[..., :earlier]
        mixed = self.mix * importance - (1 - self.mix) * redundancy
        own = recent_first(window, mixed.device).expand(*mixed.shape[:2], -1)
        return torch.cat([mixed, own], dim=-1)

    def begin(self, layer: ContextLayer, kept: KeptKeys) -> tuple[Tensor, ...]:
        """Remember the last queries."""
        return (last_queries(layer.witnessed.queries, self.window),)

    def after_query(self, held: HeldKeys, step: QueryStep) -> HeldKeys:
        """Score the keys again when it is time, and keep the best within the budget."""
        return rescored(self, self.every, held, step)


def mean_similarity(key: Float[Tensor, "B G K D"]) -> Float[Tensor, "B G K"]:
    """Return each key's cosine similarities to the other keys, summed and divided by K."""
    unit = normalize(key.float(), dim=-1)
    others = unit.sum(2, keepdim=True) - unit  # B G K D
    return (unit * others).sum(-1) / key.shape[2]
