"""Budgets of maskers, and selection of the highest-scoring keys within them."""

# B batch, H query heads, Q queries, K keys

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention import selection_cpu
from sah.attention.inputs import AttentionInputs


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Number of keys that a masker adds per query; set exactly one of `tokens` and `fraction`.

    Keys that an earlier masker selected do not count towards it. A budget larger than the number
    of candidates adds all of them.
    """

    tokens: int | None = None
    """Keys to add."""
    fraction: float | None = None
    """Share of each query's visible keys to add, in (0, 1]; rounded up."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if (self.tokens is None) == (self.fraction is None):
            raise ValueError(
                f"{name}: give exactly one of tokens and fraction, got tokens={self.tokens} and "
                f"fraction={self.fraction}; set the other one to null"
            )
        if self.tokens is not None:
            require_tokens(name, self.tokens)
        if self.fraction is not None:
            require_fraction(name, "fraction", self.fraction)

    def per_query(self, inputs: AttentionInputs) -> tuple[Int[Tensor, "#B #H Q 1"], int]:
        """Return the budget of each query, and an upper bound on all of them.

        The bound is computed on the host, without waiting for the device.
        """
        total = inputs.key.shape[2]
        if self.tokens is not None:
            return torch.full_like(inputs.visible_count, self.tokens), min(self.tokens, total)
        assert self.fraction is not None
        bound = math.ceil(total * self.fraction - 1e-9)
        return inputs.visibility.share(float(self.fraction)), bound


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
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
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


def sort_descending(values: Float[Tensor, "*rest N"]) -> Float[Tensor, "*rest N"]:
    """Sort the last dimension, NaN first."""
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return selection_cpu.sort_descending(values)
    return values.sort(dim=-1, descending=True).values


def order_descending(scores: Float[Tensor, "*rest N"]) -> Int[Tensor, "*rest N"]:
    """Order the last dimension from the highest score to the lowest; of equal scores the first.

    NaN counts as plus infinity, as in `select_top`.
    """
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return selection_cpu.order_descending(scores)
    scores = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return scores.argsort(dim=-1, descending=True, stable=True)
