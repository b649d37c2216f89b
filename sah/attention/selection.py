"""Budgets of maskers, and selection of the highest-scoring keys within them."""

# B batch, H query heads, Q queries, K keys, U units of consecutive keys

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention import host, selection_cpu
from sah.attention.inputs import AttentionInputs


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Number of keys that a masker adds per query; set exactly one of `tokens` and `fraction`.

    Keys that an earlier masker selected do not count towards it. A budget larger than the number
    of candidates adds all of them.
    """

    budget_options: ClassVar = ("tokens", "fraction")
    """Options that scale how much it selects; the first that is not null is its budget."""

    tokens: int | None = None
    """Keys to add."""
    fraction: float | None = None
    """Share of each query's visible keys to add, in (0, 1]; rounded up."""

    def __post_init__(self) -> None:
        require_budget(type(self).__name__, self.tokens, self.fraction)

    def per_query(self, inputs: AttentionInputs) -> tuple[Int[Tensor, "#B #H Q 1"], int]:
        """Return the budget of each query, and an upper bound on all of them (`bound`)."""
        if self.tokens is not None:
            return torch.full_like(inputs.visible_count, self.tokens), self.bound(inputs)
        assert self.fraction is not None
        return inputs.visibility.share(float(self.fraction)), self.bound(inputs)

    def bound(self, inputs: AttentionInputs) -> int:
        """Return an upper bound on the budgets of all queries, known on the host."""
        total = inputs.key.shape[2]
        if self.tokens is not None:
            return min(self.tokens, total)
        assert self.fraction is not None
        return math.ceil(total * self.fraction - 1e-9)


def require_budget(name: str, tokens: object, fraction: object) -> None:
    """Check a budget, of which exactly one of the two is given.

    Raises:
        ValueError: if both are, or none, or if the one is out of range.
    """
    if (tokens is None) == (fraction is None):
        raise ValueError(
            f"{name}: give exactly one of tokens and fraction, got tokens={tokens} and "
            f"fraction={fraction}; set the other one to null"
        )
    if tokens is not None:
        require_tokens(name, tokens)
    if fraction is not None:
        require_fraction(name, "fraction", fraction)


def require_tokens(name: str, tokens: object) -> None:
    """Check a number of tokens.

    Raises:
        ValueError: if it is not an integer of at least 1.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(
            f"{name}: tokens must be a whole number of at least 1, got {tokens!r}; "
            "for a share of the visible keys use fraction"
        )


def require_fraction(name: str, field: str, value: object) -> None:
    """Check a fraction.

    Raises:
        ValueError: if it is not a number in (0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name}: {field} must be in (0, 1], got {value!r}")


def select_top(
    scores: Float[Tensor, "#B #H #Q K"],
    candidates: Bool[Tensor, "B H Q K"] | None,
    budget: Int[Tensor, "#B #H #Q 1"],
    budget_bound: int,
) -> Bool[Tensor, "B H Q K"]:
    """Select each query's `budget` highest-scoring candidates, or all if there are fewer.

    The tie rule, on every device: of keys with equal scores at the end of the budget, the first
    in the sequence are selected. NaN counts as plus infinity, so that a broken key shows in the
    output. By definition

        scores = scores.nan_to_num(nan=inf).masked_fill(~candidates, -inf)
        order = scores.argsort(dim=-1, descending=True, stable=True)
        rank = order.argsort(dim=-1)
        selected = (rank < budget) & (scores != -inf)

    Args:
        scores: higher is better; minus infinity is never selected.
        candidates: keys that may be selected; None if all that score above minus infinity may.
        budget: keys to select per query and head.
        budget_bound: upper bound on `budget` or K, known on the host.
    """
    if candidates is not None:
        scores = scores.masked_fill(~candidates, -torch.inf)
    if host.holds(scores) and scores.dtype == torch.float32:
        threshold, ties = selection_cpu.threshold(scores, budget)
        return select_from_threshold(scores, threshold, budget) if ties else scores >= threshold
    return select_from_threshold(scores, threshold_by_topk(scores, budget, budget_bound), budget)


def threshold_by_topk(
    scores: Float[Tensor, "B H Q K"], budget: Int[Tensor, "#B #H #Q 1"], budget_bound: int
) -> Float[Tensor, "B H Q 1"]:
    """Return the score of each query's last selected key, on any device."""
    best = scores.topk(max(1, budget_bound), dim=-1).values  # B H Q bound, NaN first
    # A budget may exceed the number of keys; at a budget of 0 any threshold selects nothing.
    last = (budget - 1).clamp(0, best.shape[-1] - 1)
    return best.gather(-1, last.expand(*best.shape[:3], 1))


def select_from_threshold(
    scores: Float[Tensor, "B H Q K"],
    threshold: Float[Tensor, "B H Q 1"],
    budget: Int[Tensor, "#B #H #Q 1"],
) -> Bool[Tensor, "B H Q K"]:
    """Select keys above the threshold, then the first of those equal to it, up to the budget.

    `threshold` is the score of the last key in the budget. Nothing waits for the device.
    """
    scores, threshold = (
        part.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        for part in (scores, threshold)
    )
    # With fewer candidates than budget the threshold is minus infinity, which is never selected.
    threshold = threshold.clamp(min=torch.finfo(scores.dtype).min)
    above, tied = scores > threshold, scores == threshold
    room = budget - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1, dtype=torch.int32) <= room))


def select_units(
    unit_scores: Float[Tensor, "#B H Q U"],
    candidates: Bool[Tensor, "B H Q K"],
    budget: Int[Tensor, "#B #H #Q 1"],
    unit: int,
) -> Bool[Tensor, "B H Q K"]:
    """Select the candidates of the best units of `unit` keys, up to the budget.

    Units are counted from position 0. The last unit is cut to its first candidates. Equal to

        scores = unit_scores.repeat_interleave(unit, dim=-1)[..., :K]
        selected = select_top(scores, candidates, budget, K)

    in half the time, because it ranks U units instead of K keys. A unit with a candidate may not
    score minus infinity.
    """
    keys, units = candidates.shape[-1], unit_scores.shape[-1]
    padded = torch.nn.functional.pad(candidates, (0, units * unit - keys))
    in_unit = padded.unflatten(-1, (units, unit))  # B H Q U unit
    cost = in_unit.sum(-1)  # B H Q U; candidates in the unit
    order = order_descending(unit_scores).expand_as(cost)
    cost_in_order = cost.gather(-1, order)
    spent_before = cost_in_order.cumsum(-1) - cost_in_order
    left = torch.empty_like(cost).scatter_(-1, order, budget - spent_before)  # B H Q U
    selected = in_unit & (left >= cost).unsqueeze(-1)
    # At most one unit of a query is cut: the one on which the budget ends.
    cut = ((left > 0) & (left < cost)).to(torch.uint8).argmax(-1, keepdim=True)
    room = left.gather(-1, cut).unsqueeze(-1)
    place = cut.unsqueeze(-1).expand(*cut.shape, unit)
    last_unit = in_unit.gather(-2, place)
    selected.scatter_(-2, place, last_unit & (last_unit.cumsum(-1) <= room))
    per_key: Tensor = selected.flatten(-2)[..., :keys]
    return per_key


def sort_descending(values: Float[Tensor, "*rest N"]) -> Float[Tensor, "*rest N"]:
    """Sort the last dimension, NaN first."""
    if host.holds(values) and values.dtype == torch.float32:
        return selection_cpu.sort_descending(values)
    return values.sort(dim=-1, descending=True).values


def order_descending(scores: Float[Tensor, "*rest N"]) -> Int[Tensor, "*rest N"]:
    """Order the last dimension from the highest score to the lowest; of equal scores the first.

    NaN counts as plus infinity, as in `select_top`.
    """
    if host.holds(scores) and scores.dtype == torch.float32:
        return selection_cpu.order_descending(scores)
    scores = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return scores.argsort(dim=-1, descending=True, stable=True)
