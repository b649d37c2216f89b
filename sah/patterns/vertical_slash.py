"""Columns and diagonals that the last queries attend to."""

# B batch, H query heads, K keys or distances

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.patterns.budgets import budget_of, require_count_or_share, require_whole
from sah.patterns.diagonals import diagonal_sums, touched_blocks
from sah.patterns.estimates import best, last_attention

_QUERIES, _KEYS = 64, 16
"""Tokens per block of queries and of keys."""


@dataclass(frozen=True, kw_only=True)
class VerticalSlash:
    """Read the columns and diagonals with most attention of the last queries, per head.

    MInference's vertical-slash head (arXiv:2407.02490, algorithm 2; `vertical_and_slash_kernel` in
    minference/modules/minference_forward.py), in all heads. A block of 64 queries reads a diagonal
    in full blocks of keys, as in the authors' kernel. Theirs are 64 keys from the diagonal on, and
    may be doubled where they overlap; here they are 16, cut at multiples of 16, and a single
    diagonal reads up to 80 keys. The density is about the same.
    """

    verticals: int | None = None
    """Columns to read; set exactly one of verticals and vertical_fraction."""
    vertical_fraction: float | None = None
    """Columns to read, as a share of the context's keys, in (0, 1]; rounded up, at least sinks."""
    slashes: int | None = None
    """Diagonals to read; set exactly one of slashes and slash_fraction."""
    slash_fraction: float | None = None
    """Diagonals, as a share of the context's distances, in (0, 1]; rounded up, at least local."""
    sinks: int = 30
    """First keys that are always among the columns; 30 as in the authors' code."""
    local: int = 100
    """Shortest distances that are always among the diagonals; 100 as in the authors' code."""
    last_queries: int = 64
    """Queries at the end of the context that vote; 64 as in the paper."""

    def __post_init__(self) -> None:
        name = "VerticalSlash"
        require_count_or_share(
            name, verticals=self.verticals, vertical_fraction=self.vertical_fraction
        )
        require_count_or_share(name, slashes=self.slashes, slash_fraction=self.slash_fraction)
        require_whole(name, "last_queries", self.last_queries, 1)
        for field, count, part in (
            ("sinks", self.verticals, "verticals"),
            ("local", self.slashes, "slashes"),
        ):
            always = getattr(self, field)
            require_whole(name, field, always, 0)
            if count is not None and count < always:
                raise ValueError(
                    f"{name}: {part}={count} is less than {field}={always}, which are always read "
                    f"and count towards it; raise {part} or lower {field}"
                )

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return the best columns, and the blocks that the best diagonals touch."""
        weights = last_attention(layer, self.last_queries)
        columns = _best(weights.sum(2), self.verticals, self.vertical_fraction, self.sinks)
        diagonals = _best(diagonal_sums(weights), self.slashes, self.slash_fraction, self.local)
        return Reads(
            columns=columns,
            blocks=touched_blocks(diagonals, _QUERIES, _KEYS),
            query_block=_QUERIES,
            key_block=_KEYS,
        )


def _best(
    scores: Float[Tensor, "B H K"], count: int | None, share: float | None, always: int
) -> Bool[Tensor, "B H K"]:
    """Select the first `always` places and the best others, within a budget for both."""
    budget = max(always, budget_of(scores.shape[-1], count, share))
    scores[..., :always] = torch.inf
    return best(scores, torch.tensor([[budget]], device=scores.device))
