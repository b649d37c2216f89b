"""Base classes of evictors that score every key and keep the best of each head."""

# B batch, G key-value heads, K keys

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.attention.selection import require_budget, select_top
from sah.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class RankingEvictor(ABC):
    """Keep the keys with the highest scores, the same number in each head.

    Of keys with equal scores at the end of the budget, the first in the sequence stay
    (`sah.attention.select_top`).
    """

    @property
    def witness(self) -> Witness:
        """What it needs of the prefill, besides keys and values; here nothing."""
        return Witness()

    @abstractmethod
    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Score all keys of the context; higher stays."""

    @abstractmethod
    def budget(self, layer: ContextLayer) -> int:
        """Return the number of keys to keep in each head of the layer."""

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        return keep_best(self.scores(layer), self.budget(layer))


@dataclass(frozen=True, kw_only=True)
class ScoringEvictor(RankingEvictor):
    """Keep the keys with the highest scores, within a budget of tokens or a share of the context.

    An evictor is a frozen dataclass with one method, `scores`.
    """

    budget_options: ClassVar = ("tokens", "fraction")
    """Options that scale how much it keeps; the first that is not null is its budget."""

    tokens: int | None = None
    """Keys to keep, per head and layer; set exactly one of tokens and fraction."""
    fraction: float | None = None
    """Keys to keep, as a share of the context's keys, in (0, 1]; rounded down, at least one."""

    def __post_init__(self) -> None:
        require_budget(type(self).__name__, self.tokens, self.fraction)

    def budget(self, layer: ContextLayer) -> int:
        """Return the number of keys to keep in each head of the layer."""
        return min(self.capacity(layer.length), layer.length)

    def capacity(self, context: int) -> int:
        """Return the number of keys that a head may hold, while decoding too.

        Args:
            context: number of keys of the context.

        Raises:
            ConfigurationError: for a fraction of an empty context.
        """
        if self.tokens is not None:
            return self.tokens
        assert self.fraction is not None
        if context == 0:
            raise ConfigurationError(
                f"{type(self).__name__}: fraction={self.fraction} of an empty context leaves no "
                "key to decode with; set fraction to null, and tokens to what a head may hold"
            )
        # In floating point 0.29 * 100 is slightly less than 29, which must not become 28.
        return max(1, math.floor(context * self.fraction + 1e-9))


def keep_best(scores: Float[Tensor, "B G K"], budget: int) -> Bool[Tensor, "B G K"]:
    """Return the `budget` keys with the highest scores of each head."""
    limit = torch.full((1, 1, 1, 1), budget, device=scores.device)
    return select_top(scores.float().unsqueeze(2), None, limit, budget).squeeze(2)


def recent_first(count: int, device: torch.device) -> Float[Tensor, " N"]:
    """Return the scores of the last `count` keys where they stay: in (1, 2], the last one best.

    More than any share of attention, so that a small budget keeps the most recent keys.
    """
    return 1 + torch.arange(1, count + 1, device=device, dtype=torch.float32) / max(1, count)
