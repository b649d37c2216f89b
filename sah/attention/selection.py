"""How many keys a masker adds, and picking that many."""

# B batch, H query heads, Q queries, K keys

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention.inputs import AttentionInputs


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Exactly one of `tokens` and `fraction`: the keys a masker adds to each query's own.

    Keys an earlier masker selected do not count; a budget larger than what is left
    adds what is left.
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

    def keys(self, inputs: AttentionInputs) -> tuple[Int[Tensor, "B 1 Q 1"], int]:
        """The budget of each query, and an upper bound of them all.

        The bound is known on the host, so that asking does not wait for the device.
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
        ValueError: if it is not a positive whole number.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(
            f"{name}: tokens must be a whole number of at least 1, got {tokens!r}; "
            "for a share of the visible keys use fraction"
        )


def require_fraction(name: str, field: str, value: object) -> None:
    """Check a share.

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
    """Select each query's `budget` best-scored candidates, or all if there are fewer.

    Args:
        scores: higher is better.
        candidates: what may be selected; None if nothing else scores more than minus infinity.
        budget: keys to select per query and head.
        budget_bound: no budget is larger than this.
    """
    if candidates is not None:
        scores = scores.masked_fill(~candidates, -torch.inf)
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return _select_by_threshold(scores, budget)
    ranked = scores.topk(budget_bound, dim=-1)
    rank = torch.arange(budget_bound, device=scores.device)
    kept = (rank < budget) & (ranked.values != -torch.inf)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, ranked.indices, kept)


def _select_by_threshold(
    scores: Float[Tensor, "B H Q K"], budget: Int[Tensor, "#B #H #Q 1"]
) -> Bool[Tensor, "B H Q K"]:
    """Select as `select_top` does; of candidates that tie for the last places, the first ones.

    What is no candidate has a score of minus infinity.
    """
    threshold, tie = _thresholds(scores, budget)
    if threshold.isnan().any():
        # NaN is the largest, as for topk: what a broken key makes of the output must show.
        scores = scores.nan_to_num(nan=torch.finfo(scores.dtype).max, neginf=-torch.inf)
        threshold, tie = _thresholds(scores, budget)
    selected = scores >= threshold
    if tie:
        excess = selected.sum(-1, keepdim=True) - budget
        tied = scores == threshold
        dropped = tied.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1) <= excess
        selected &= ~(tied & dropped)
    return selected


def _thresholds(
    scores: Float[Tensor, "B H Q K"], budget: Int[Tensor, "#B #H #Q 1"]
) -> tuple[Float[Tensor, "B H Q 1"], bool]:
    """The score of each query's last selected key, on the CPU, and whether any other ties with it.

    NaN where a NaN is among the selected. NumPy's partition is ten times faster than torch's topk
    here.
    """
    rows = scores.detach().numpy().reshape(-1, scores.shape[-1])
    budgets = budget.expand(*scores.shape[:3], 1).flatten().tolist()
    if len(set(budgets)) == 1:
        last, next_best = _last_and_next(rows, budgets[0])
    else:
        pairs = [_last_and_next(rows[n : n + 1], wanted) for n, wanted in enumerate(budgets)]
        last, next_best = (np.concatenate(side) for side in zip(*pairs, strict=True))
    # Minus infinity is no candidate, and no tie.
    last = np.maximum(last, np.finfo(np.float32).min)
    thresholds = torch.from_numpy(last).view(*scores.shape[:3], 1)
    return thresholds, bool((last == next_best).any())


def _last_and_next(
    rows: Float[np.ndarray, "R K"], wanted: int
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """The `wanted`th largest number of each row, and the one that follows it."""
    place = rows.shape[-1] - wanted
    nothing = np.full(len(rows), -np.inf, dtype=np.float32)
    if wanted == 0:
        return -nothing, nothing
    if place <= 0:
        return np.where(np.isnan(rows).any(-1), np.float32(np.nan), nothing), nothing
    # Of two places at a time, partition would be five times slower.
    in_order = np.partition(rows, place, axis=-1)
    last = in_order[:, place]
    largest = in_order[:, place:].max(-1)
    return np.where(np.isnan(largest), largest, last), in_order[:, :place].max(-1)


def order_descending(scores: Float[Tensor, "*rest N"]) -> Int[Tensor, "*rest N"]:
    """Indices of the last dimension from the highest score to the lowest.

    On the CPU by NumPy, for its speed; equal scores come in no particular order.
    """
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argsort(-scores.detach().numpy(), axis=-1))
    return scores.argsort(dim=-1, descending=True)
