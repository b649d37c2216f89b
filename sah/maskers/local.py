"""Sliding window: the most recent keys of each query."""

from dataclasses import dataclass
from typing import ClassVar

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.selection import require_tokens


@dataclass(frozen=True, kw_only=True)
class Local:
    """Add the last visible keys of each query, its own included.

    The window of StreamingLLM (arXiv:2309.17453). Each query of a prompt has its own window, so
    that several queries at once are as sparse as decoding.
    """

    positions_only: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    budget_options: ClassVar = ("tokens",)

    tokens: int
    """Keys in the window."""

    def __post_init__(self) -> None:
        require_tokens("Local", self.tokens)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        first = inputs.visible_count - self.tokens
        return mask.add(inputs.visible_rank > first, at_most=self.tokens)
