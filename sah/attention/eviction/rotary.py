"""The rotary embedding of one layer, and the moments of its future queries."""

# B batch, H query heads, G key-value heads, N tokens, P positions, D head dimension,
# R rotated dimensions

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FutureQueries:
    """How the queries after a context are estimated from those of the context."""

    skip: int
    """Queries at the beginning that do not count."""
    positions: int
    """Number of positions after the context."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and covariance of the queries of each head, in float32."""

    mean: Float[Tensor, "B H D"]
    covariance: Float[Tensor, "B H D D"]
    count: int
    """Number of queries."""

    @classmethod
    def of(cls, queries: Float[Tensor, "B H N D"]) -> "Moments":
        """Compute the moments of at least one query."""
        queries = queries.float()
        mean = queries.mean(2)  # B H D
        centred = queries - mean.unsqueeze(2)
        covariance = centred.transpose(2, 3) @ centred / queries.shape[2]
        return cls(mean=mean, covariance=covariance, count=queries.shape[2])

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of queries together (Chan et al., 1979)."""
        count = self.count + other.count
        share = other.count / count
        apart = other.mean - self.mean
        between = apart.unsqueeze(-1) @ apart.unsqueeze(-2) * (share * (1 - share))
        covariance = self.covariance * (1 - share) + other.covariance * share + between
        return Moments(mean=self.mean + apart * share, covariance=covariance, count=count)


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotates as the model's own code does: partially, interleaved or scaled as it may be."""

    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    """From tokens [B, H, N, D], cosine and sine to the rotated tokens; None: nothing rotates."""
    cos: Float[Tensor, "*rows P R"] | None = None
    """Of the positions from 0 on, in float32, with the scale of the embedding."""
    sin: Float[Tensor, "*rows P R"] | None = None

    def undo(self, rotated: Float[Tensor, "B G N D"]) -> Float[Tensor, "B G N D"]:
        """Return the tokens of positions 0 to N - 1 before the rotation, in float32."""
        if self.rotate is None:
            return rotated.float()
        assert self.cos is not None
        assert self.sin is not None
        cos, sin = (part[..., : rotated.shape[2], :] for part in (self.cos, self.sin))
        square = cos.square() + sin.square()  # the square of the embedding's scale
        return self.rotate(rotated.float(), cos / square, -sin / square)

    def future(self, seen: Moments, first: int, positions: int) -> Moments:
        """Return the moments of the queries that follow, from those seen so far.

        The queries' mean and covariance before the rotation, rotated by the mean of the next
        positions' rotations (Expected Attention, arXiv:2510.00636, section 3.1).

        Args:
            seen: before the rotation.
            first: the position of the next query.
            positions: number of positions from there on.
        """
        if self.rotate is None:
            return seen
        assert self.cos is not None
        assert self.sin is not None
        mean, after = seen.mean, slice(first, first + positions)
        cos, sin = (part[..., after, :].mean(-2, keepdim=True) for part in (self.cos, self.sin))
        unit = torch.eye(mean.shape[-1], device=mean.device).view(1, -1, 1, mean.shape[-1])
        # The embedding is linear: row i is the rotated unit vector i.
        rotation = self.rotate(unit, cos, sin).reshape(mean.shape[-1], -1)
        covariance = rotation.T @ seen.covariance @ rotation
        return Moments(mean=mean @ rotation, covariance=covariance, count=seen.count)


def replay(function: Callable[..., Any], rest: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return `Rotary.rotate` of a model's `apply_rotary_pos_emb` and its further arguments."""

    def rotate(tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rotated: Tensor = function(tokens, tokens, cos, sin, *rest, **keywords)[0]
        return rotated

    return rotate
