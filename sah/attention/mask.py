"""Weighted attention masks: the keys that each query reads, and their weights."""

# B batch, H query heads, G key-value heads, Q queries, K keys

from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention import host
from sah.attention.gather import SelectedKeys
from sah.attention.inputs import AttentionInputs


@dataclass(frozen=True, kw_only=True)
class AttentionMask:
    """Selected keys per query and head; immutable, `add` returns a new mask.

    A key has weight 0 (not read), 1 (read) or 1/p (sampled with inclusion probability p). The
    output of attention is Σ w·e^s·v / Σ w·e^s.
    """

    visible: Bool[Tensor, "#B #H Q K"]
    selected: Bool[Tensor, "B H Q K"]
    sampled_weight: Float[Tensor, "B H Q K"] | None = None
    """Weights of the selected keys; None while every selected key has weight 1."""
    at_most: int | None = None
    """Upper bound on `selected_count`, known without asking the device; None if there is none."""

    @classmethod
    def empty(cls, inputs: AttentionInputs) -> "AttentionMask":
        """Return a mask that selects nothing."""
        shape = (*inputs.query.shape[:3], inputs.key.shape[2])
        nothing = torch.zeros(shape, dtype=torch.bool, device=inputs.query.device)
        return cls(visible=inputs.visible, selected=nothing, at_most=0)

    @cached_property
    def candidates(self) -> Bool[Tensor, "B H Q K"]:
        """Keys that a masker may add: visible and not selected yet."""
        return self.visible & ~self.selected

    @cached_property
    def selected_count(self) -> Int[Tensor, "B H Q"]:
        """Number of selected keys of each query and head."""
        return self.selected.sum(-1)

    @cached_property
    def selected_keys(self) -> SelectedKeys:
        """Positions of the selected keys."""
        return SelectedKeys.of(self.selected, self.selected_count, self.at_most)

    @property
    def weights(self) -> Float[Tensor, "B H Q K"]:
        """Weight of every key; 0 for keys that are not read."""
        if self.sampled_weight is None:
            return self.selected.float()
        return torch.where(self.selected, self.sampled_weight, 0.0)

    def add(
        self,
        keys: Bool[Tensor, "#B #H #Q K"],
        weight: Float[Tensor, "#B #H #Q #K"] | None = None,
        *,
        at_most: int | None = None,
    ) -> "AttentionMask":
        """Select more keys, with weight 1 or the given weight.

        Invisible keys are ignored, and keys that are already selected keep their weight, so that
        no later masker can change it.

        Args:
            keys: to select.
            weight: of these keys.
            at_most: upper bound on the keys that any query gets; None if the host knows none. A
                decode step on a GPU gathers by the bounds of its maskers, or reads all keys.
        """
        added = keys & self.candidates
        sampled_weight = self.sampled_weight
        if weight is not None or sampled_weight is not None:
            before = 1.0 if sampled_weight is None else sampled_weight
            sampled_weight = torch.where(added, 1.0 if weight is None else weight, before)
        return AttentionMask(
            visible=self.visible,
            selected=self.selected | added,
            sampled_weight=sampled_weight,
            at_most=self._bound_after(at_most),
        )

    def _bound_after(self, added: int | None) -> int | None:
        if self.at_most is None or added is None:
            return None
        return min(self.at_most + added, self.selected.shape[-1])

    def at_queries(self, start: int, end: int) -> "AttentionMask":
        """Return the mask of the queries from `start` to `end`, without copies."""
        weight = self.sampled_weight
        return AttentionMask(
            visible=self.visible[:, :, start:end],
            selected=self.selected[:, :, start:end],
            sampled_weight=None if weight is None else weight[:, :, start:end],
            at_most=self.at_most,
        )

    def row(self, number: int, keys: int) -> "AttentionMask":
        """Return the mask of one row of a batch, which has this many keys, without copies."""
        this, weight = slice(number, number + 1), self.sampled_weight
        return AttentionMask(
            visible=self.visible[this, ..., :keys],
            selected=self.selected[this, ..., :keys],
            sampled_weight=None if weight is None else weight[this, ..., :keys],
            at_most=self.at_most,
        )

    def density(self) -> Float[Tensor, "B H Q"]:
        """Return the share of visible keys selected; NaN for a query that sees none (padding)."""
        return self.selected_count / self.visible.sum(-1)

    def rows_read(self, groups: int) -> Int[Tensor, "B G Q"]:
        """Return how many key-value rows the query heads of each of G groups read together.

        A row that several heads of a group select is read once. Nothing waits for the device.
        """
        if groups == self.selected.shape[1]:
            return self.selected_count
        by_group = self.selected.unflatten(1, (groups, -1))  # B G H/G Q K
        if host.holds(self.selected):
            # On the CPU, `any` over a dimension in the middle takes twenty times as long.
            union: Tensor = reduce(torch.bitwise_or, by_group.unbind(2))
        else:
            union = by_group.any(2)
        return union.sum(-1, dtype=torch.int32)  # B G Q
