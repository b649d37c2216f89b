"""The keys that each query may read."""

# B batch, H query heads, Q queries, K keys

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.attention.stacked.row_lengths import RowLengths

Made = TypeVar("Made")


@dataclass(frozen=True)
class Visibility:
    """Keys that each query may read, with their counts and ranks.

    All layers of a step share one instance, but for those with rows that pad a head.
    """

    keys: Bool[Tensor, "#B #H Q K"]
    """Causal and not padding; equal for all heads, unless they keep different numbers of keys."""

    @classmethod
    def of_call(cls, query: Tensor, key: Tensor, attention_mask: Tensor | None) -> "Visibility":
        """Return the keys that each query of an attention call may read, [B, 1, Q, K].

        Without a mask from transformers, attention is causal and the queries are at the last
        positions.
        """
        batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
        if attention_mask is not None:
            return cls(attention_mask[..., :keys].expand(batch, 1, queries, keys))
        position = torch.arange(keys, device=key.device)
        visible = position <= position[keys - queries :, None]
        return cls(visible.expand(batch, 1, queries, keys))

    @classmethod
    def of_rows(cls, lengths: RowLengths, window: int | None = None) -> "Visibility":
        """Return the keys that the last query of each row of a batch may read, [B, 1, 1, K].

        Args:
            lengths: keys of each row; K is the largest.
            window: keys before and with the query that it may read; None: all.
        """

        def visibility() -> Visibility:
            position = torch.arange(lengths.longest, device=lengths.device)
            count = lengths.count.view(-1, 1, 1, 1)
            keys = position < count
            if window is not None:
                keys &= position >= count - window
            return cls(keys)

        return lengths.cached(("visibility", window), visibility)

    @cached_property
    def count(self) -> Int[Tensor, "#B #H Q 1"]:
        """Number of keys that each query may read."""
        return self.keys.sum(-1, keepdim=True)

    @cached_property
    def rank(self) -> Int[Tensor, "#B #H Q K"]:
        """1 for each query's first visible key, 2 for the second, and so on."""
        return self.keys.cumsum(-1)

    def share(self, fraction: float) -> Int[Tensor, "#B #H Q 1"]:
        """Return a fraction of `count`, rounded up."""
        # In floating point 0.1 * 30 is slightly more than 3, which must not become 4.
        return self.cached(
            ("share", fraction),
            lambda: (self.count.double() * fraction - 1e-9).ceil().long(),
        )

    def cached(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return the result of `make`, computed once and shared by all layers of the step.

        Only for results that depend on nothing but visibility.
        """
        if key not in self._made:
            self._made[key] = make()
        return cast(Made, self._made[key])

    @cached_property
    def _made(self) -> dict[Hashable, object]:
        return {}


class StepVisibility:
    """The visibility of a step: the first layer creates it, the others share it."""

    def __init__(self) -> None:
        self._known: tuple[tuple[Any, ...], Tensor | None, Visibility] | None = None

    def of_call(
        self, query: Tensor, key: Tensor, attention_mask: Tensor | None, kept: KeptKeys | None
    ) -> Visibility:
        """Return what the queries of one call may read.

        Args:
            query: [B, H, Q, D].
            key: [B, G, K, D].
            attention_mask: as transformers passes it.
            kept: what the layer keeps of the context; None: everything.
        """
        if kept is not None:
            # The mask of transformers is of the whole sequence. There is no padding in it.
            attention_mask = None
        step = (query.shape[0], query.shape[2], key.shape[2], key.device)
        known = self._known
        if known is None or known[0] != step or known[1] is not attention_mask:
            known = step, attention_mask, Visibility.of_call(query, key, attention_mask)
            self._known = known
        if kept is None or kept.valid is None:
            return known[2]
        valid = kept.valid.repeat_interleave(query.shape[1] // key.shape[1], dim=1).unsqueeze(2)
        visible = known[2].keys.expand(-1, query.shape[1], -1, -1).clone()  # B H Q K
        visible[..., : kept.rows] &= valid
        return Visibility(visible)
