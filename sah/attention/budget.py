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
        return inputs.visibility.share(self.fraction), math.ceil(total * self.fraction - 1e-9)


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
    candidates: Bool[Tensor, "B H Q K"],
    budget: Int[Tensor, "#B #H #Q 1"],
    budget_bound: int,
) -> Bool[Tensor, "B H Q K"]:
    """Select each query's `budget` best-scored candidates, or all if there are fewer.

    Args:
        scores: higher is better.
        candidates: what may be selected.
        budget: keys to select per query and head.
        budget_bound: no budget is larger than this.
    """
    scores = scores.masked_fill(~candidates, -torch.inf)
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return _select_by_threshold(scores, candidates, budget)
    ranked = scores.topk(budget_bound, dim=-1)
    rank = torch.arange(budget_bound, device=scores.device)
    kept = (rank < budget) & (ranked.values != -torch.inf)
    return torch.zeros_like(candidates).scatter_(-1, ranked.indices, kept)


def _select_by_threshold(
    scores: Float[Tensor, "B H Q K"],
    candidates: Bool[Tensor, "B H Q K"],
    budget: Int[Tensor, "#B #H #Q 1"],
) -> Bool[Tensor, "B H Q K"]:
    """Select as `select_top` does; of candidates that tie for the last places, the first ones."""
    threshold = _thresholds(scores, budget)
    selected = candidates & (scores >= threshold)
    excess = selected.sum(-1, keepdim=True) - budget
    if (excess > 0).any():
        tied = candidates & (scores == threshold)
        dropped = tied.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1) <= excess
        selected &= ~(tied & dropped)
    return selected


def _thresholds(
    scores: Float[Tensor, "B H Q K"], budget: Int[Tensor, "#B #H #Q 1"]
) -> Float[Tensor, "B H Q 1"]:
    """The score of each query's last selected key, on the CPU.

    NumPy's partition is ten times faster than torch's topk here.
    """
    rows = scores.detach().numpy().reshape(-1, scores.shape[-1])
    count = rows.shape[1]
    if budget.numel() == 1 and (wanted := min(int(budget), count)):
        place = count - wanted
        thresholds = np.partition(rows, place, axis=-1)[:, place]
        return torch.from_numpy(thresholds.copy()).view(*scores.shape[:3], 1)
    thresholds = np.full(len(rows), np.inf, dtype=np.float32)
    budgets = budget.expand(*scores.shape[:3], 1).reshape(-1).clamp(max=count).tolist()
    for number, wanted in enumerate(budgets):
        if wanted:
            place = count - wanted
            thresholds[number] = np.partition(rows[number], place)[place]
    return torch.from_numpy(thresholds).view(*scores.shape[:3], 1)


def order_descending(scores: Float[Tensor, "*rest N"]) -> Int[Tensor, "*rest N"]:
    """Indices of the last dimension from the highest score to the lowest.

    On the CPU by NumPy, for its speed; equal scores come in no particular order.
    """
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argsort(-scores.detach().numpy(), axis=-1))
    return scores.argsort(dim=-1, descending=True)
