"""One query after the context, as evictors that work while decoding see it."""

# B batch, H query heads, G key-value heads, R rows held so far (of the longest sequence),
# N kept rows of the context, D/V dimensions

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.received import softmax_beside_sinks
from sah.attention.inputs import AttentionInputs
from sah.attention.selection import select_top


@dataclass(frozen=True, kw_only=True)
class HeldKeys:
    """The keys that a layer holds at one point of an answer, and what its evictor remembers."""

    alive: Bool[Tensor, "B G R"]
    """False for evicted keys, and beyond the end of a sequence that is shorter than others in the
    batch. Rows: those kept of the context, then every later key."""
    memory: tuple[Tensor, ...] = ()
    """Running sums, last queries and the like."""


@dataclass(frozen=True, kw_only=True)
class QueryStep:
    """One query that has been read, with the keys that it could read; its own is the last row.

    Or one query of each sequence that is decoded in a batch (`inputs.rows`); a `batched` evictor
    gets such steps.
    """

    inputs: AttentionInputs
    """Of this query alone; `visible` is false for evicted keys."""
    module: nn.Module
    """The layer's attention module of transformers."""
    layers: int
    """Number of layers of the model."""

    @property
    def context(self) -> int:
        """Keys of the context, evicted ones included; of a single sequence."""
        (context,) = self.contexts
        return context

    @property
    def contexts(self) -> list[int]:
        """Keys of the context of each sequence, evicted ones included."""
        return [kept.key.shape[2] for kept in self._kept]

    @property
    def after_context(self) -> int:
        """Number of queries after the context so far, this one included; of a single sequence."""
        (queries,) = self.after_contexts
        return queries

    @property
    def after_contexts(self) -> list[int]:
        """Number of queries after the context of each sequence so far, this one included."""
        return [rows - kept.rows for rows, kept in zip(self._held_rows, self._kept, strict=True)]

    @property
    def positions(self) -> Int[Tensor, "B G R"]:
        """Position of each row in the sequence; of a single sequence."""
        (kept,) = self._kept
        later = torch.arange(self.after_context, device=kept.position.device) + self.context
        return torch.cat([kept.position, later.expand(*kept.position.shape[:2], -1)], dim=-1)

    @cached_property
    def weights(self) -> Float[Tensor, "B H R"]:
        """Attention weights of the query over all keys that the layer holds, in float32.

        Also where maskers let it read fewer. Soft-capped like the model's scores, and without the
        share of its attention sinks.
        """
        scores = self.inputs.scores.masked_fill(~self.inputs.visible, -torch.inf)
        return softmax_beside_sinks(scores, self.inputs.sinks).squeeze(2)

    def mean_over_group(self, per_head: Shaped[Tensor, "B H R"]) -> Shaped[Tensor, "B G R"]:
        """Average over the query heads of each key-value head."""
        mean: Tensor = per_head.unflatten(1, (self.inputs.key.shape[1], -1)).mean(2)
        return mean

    def last(self, counts: Sequence[int]) -> Bool[Tensor, "#B 1 R"]:
        """Return which rows are the last of each sequence, and which are beyond its end.

        Args:
            counts: number of last rows of each sequence.
        """
        key, rows = self.inputs.key, self.inputs.rows

        def from_row(first: Tensor | int) -> Tensor:
            return torch.arange(key.shape[2], device=key.device) >= first

        if rows is None:
            return from_row(key.shape[2] - counts[0]).view(1, 1, -1)
        lengths = rows.lengths
        return lengths.cached(
            ("last rows", tuple(counts)),
            lambda: from_row((lengths.count - lengths.constant(counts)).view(-1, 1, 1)),
        )

    def best(
        self, held: HeldKeys, scores: Float[Tensor, "#B #G R"], budget: int | Sequence[int]
    ) -> Bool[Tensor, "B G R"]:
        """Return the keys with the highest scores among those that each head holds.

        Args:
            held: before this eviction.
            scores: higher is better. Minus infinity never stays, once there are more rows than the
                budget.
            budget: keys that a head may hold, or a list with the budget of each sequence.
        """
        counts = self._held_rows
        budgets = [budget] * len(counts) if isinstance(budget, int) else list(budget)
        fits = [rows <= limit for rows, limit in zip(counts, budgets, strict=True)]
        if all(fits):
            return held.alive
        scores = scores.expand(held.alive.shape).float().unsqueeze(2)
        limits = self._limits(budgets)
        bound = min(max(budgets), scores.shape[-1])
        best = select_top(scores, held.alive.unsqueeze(2), limits, bound).squeeze(2)
        if not any(fits):
            return best
        assert self.inputs.rows is not None
        is_within = self.inputs.rows.lengths.count.view(-1, 1, 1) <= limits.squeeze(-1)
        return torch.where(is_within, held.alive, best)

    def sequence(self, number: int) -> "QueryStep":
        """Return the step of one sequence of a batch, without copies."""
        return QueryStep(inputs=self.inputs.row(number), module=self.module, layers=self.layers)

    @property
    def _kept(self) -> Sequence[KeptKeys]:
        rows = self.inputs.rows
        kept = [self.inputs.kept] if rows is None else rows.kept
        # Where nothing was kept of a context, `LaterEvictions` says so.
        return cast(Sequence[KeptKeys], kept)

    @property
    def _held_rows(self) -> Sequence[int]:
        """Rows of each sequence, evicted ones included."""
        rows = self.inputs.rows
        return [self.inputs.key.shape[2]] if rows is None else rows.lengths.keys

    def _limits(self, budgets: Sequence[int]) -> Int[Tensor, "#B 1 1 1"]:
        rows = self.inputs.rows
        if rows is not None:
            return rows.lengths.constant(budgets).view(-1, 1, 1, 1)
        return torch.full((1, 1, 1, 1), budgets[0], device=self.inputs.key.device)
