"""Base class of maskers that score every key and select the best within a budget."""

# B batch, H query heads, S sets of query heads that select together, Q queries, K keys

from abc import ABC, abstractmethod
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.inputs import AttentionInputs, HeldSelection
from sah.attention.mask import AttentionMask
from sah.attention.selection import Budget, select_top, select_units


@dataclass(frozen=True, kw_only=True)
class TopKMasker(Budget, ABC):
    """Add each query's highest-scoring candidates, as many as the budget allows.

    A selector is a frozen dataclass with one method, `scores`. Of keys with equal scores at the
    end of the budget, the first in the sequence are added (`select_top`). The options restrict
    the selection to what an engine can read: rows that query heads share, whole pages, and a
    selection that serves several decode steps.
    """

    share: Literal["head", "group", "all"] = "head"
    """Query heads that select together: each alone, those of a key-value head, or all.

    They rank keys by the sum of their softmax over the candidates (PQCache, arXiv:2407.12820), of
    the logits that `logits` derives from the scores. The budget is that of the set: a head does
    not get another key in place of one that it has already selected.
    """
    unit: int = 1
    """Select whole units of this many consecutive keys, counted from position 0.

    A unit scores as much as its best candidate. The budget still counts keys: the last unit is
    cut to its first candidates.
    """
    every: int = 1
    """Select at every n-th decode step, and reuse the selection in the n - 1 steps that follow.

    Keys that are newer than the selection are not in it; Local reads them. The first decode step
    selects, and so does each query of a question. A continuation is read like decode steps.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.share not in ("head", "group", "all"):
            raise ValueError(f"{name}: share must be head, group or all, got {self.share!r}")
        for option in ("unit", "every"):
            value = getattr(self, option)
            if isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: {option} must be at least 1, got {value!r}")
        if self.tokens is not None and self.tokens < self.unit:
            raise ValueError(
                f"{name}: tokens={self.tokens} is less than one unit of unit={self.unit} keys; "
                "raise tokens or lower unit"
            )

    @abstractmethod
    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "#B H Q K"]:
        """Score all K keys, invisible ones too; only their order within a query matters."""

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "#B H Q K"]
    ) -> Float[Tensor, "#B H Q K"]:
        """Return the attention logits that the scores estimate, for heads that select together.

        By default the scores estimate q·k.
        """
        return inputs.logits_of(scores)

    def select(self, inputs: AttentionInputs, mask: AttentionMask) -> Bool[Tensor, "B H Q K"]:
        """Select the best candidates; override only with a faster way to the same keys."""
        budget, bound = self.per_query(inputs)
        scores, candidates = self.scores(inputs), mask.candidates
        heads = inputs.query.shape[1]
        sets = {"head": heads, "group": inputs.key.shape[1], "all": 1}[self.share]
        if sets < heads:
            scores = shared_scores(self.logits(inputs, scores), candidates, sets)
            candidates = _any_of_set(candidates, sets)
        if self.unit == 1:
            selected = select_top(scores, candidates, budget, bound)
        else:
            candidates = candidates & (scores != -torch.inf)
            best = unit_scores(scores, candidates, self.unit)
            selected = select_units(best, candidates, budget, self.unit)
        return selected.repeat_interleave(heads // sets, dim=1) if sets < heads else selected

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        """Return the mask with each query's best candidates added, at weight 1."""
        if self.every == 1 or inputs.held is None:
            selected = self.select(inputs, mask)
        else:
            # No budget shrinks as the sequence grows: the bound holds for earlier selections too.
            selected = self._select_or_reuse(inputs, mask, inputs.held)
        return mask.add(selected, at_most=self.bound(inputs))

    def _select_or_reuse(
        self,
        inputs: AttentionInputs,
        mask: AttentionMask,
        held: MutableMapping[Hashable, HeldSelection],
    ) -> Bool[Tensor, "B H #Q K"]:
        """Return each query's selection: its own at every n-th query, else the last one made."""
        queries = range(inputs.query.shape[2])
        # Rows of a batch take their steps together.
        now = inputs.first_position if inputs.rows is None else inputs.rows.lengths.steps
        before = held.get(self)
        first = now if before is None else before.first_position
        # Queries since the last selection.
        age = [(now + query - first) % self.every for query in queries]
        if before is not None:
            room = inputs.key.shape[2] - before.keys.shape[3]
            reused = torch.nn.functional.pad(before.keys, (0, room))  # B H 1 K
            if 0 not in age:
                return reused
        own = self.select(inputs, mask)
        last = queries[-1] - age[-1]
        held[self] = HeldSelection(first_position=first, keys=own[:, :, last : last + 1].clone())
        if len(queries) == 1:
            return own
        # Before them all, the selection that the first queries reuse; there are none without it.
        made = own if before is None else torch.cat([reused, own], dim=2)
        start = made.shape[2] - len(queries)
        source = [max(start + query - age[query], 0) for query in queries]
        return made[:, :, source]


def shared_scores(
    logits: Float[Tensor, "#B H Q K"], candidates: Bool[Tensor, "B H Q K"], sets: int
) -> Float[Tensor, "B S Q K"]:
    """Score keys for the heads of each set: log Σ_heads softmax over the candidates of logits.

    The logarithm keeps the order of keys whose share of attention is too small for float32. A
    score of NaN or infinity in any head gives infinity, so that a broken key is selected.
    """
    broken = ~(logits < torch.inf)
    lowest = torch.finfo(logits.dtype).min  # minus infinity gives NaN in a row without candidates
    share = logits.masked_fill(broken | ~candidates, lowest).log_softmax(-1)
    total: Tensor = share.unflatten(1, (sets, -1)).logsumexp(2)
    return total.masked_fill(_any_of_set(broken & candidates, sets), torch.inf)


def unit_scores(
    scores: Float[Tensor, "#B S Q K"], candidates: Bool[Tensor, "B S Q K"], unit: int
) -> Float[Tensor, "B S Q U"]:
    """Return the score of each unit's best candidate; minus infinity if it has none."""
    scores = scores.masked_fill(~candidates, -torch.inf)
    padded = torch.nn.functional.pad(scores, (0, -scores.shape[-1] % unit), value=-torch.inf)
    best: Tensor = padded.unflatten(-1, (-1, unit)).amax(-1)
    return best


def _any_of_set(of_head: Bool[Tensor, "B H Q K"], sets: int) -> Bool[Tensor, "B S Q K"]:
    by_set = of_head.unflatten(1, (sets, -1))
    # On the CPU, `any` over a dimension in the middle takes twenty times as long.
    union: Tensor = reduce(torch.bitwise_or, by_set.unbind(2))
    return union
