"""How many keys a masker adds, and picking that many."""

# B batch, H query heads, Q queries, K keys

import math
from dataclasses import dataclass

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
        # 0.1 * 30 is a little more than 3 in floating point, and must not become 4.
        wanted = (inputs.visible_count.double() * self.fraction - 1e-9).ceil().long()
        return wanted, math.ceil(total * self.fraction - 1e-9)


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
    ranked = scores.masked_fill(~candidates, -torch.inf).topk(budget_bound, dim=-1)
    rank = torch.arange(budget_bound, device=scores.device)
    kept = (rank < budget) & (ranked.values != -torch.inf)
    return torch.zeros_like(candidates).scatter_(-1, ranked.indices, kept)
