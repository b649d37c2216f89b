"""Attention sinks: the first keys of the sequence."""

from dataclasses import dataclass
from typing import ClassVar

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.selection import require_tokens


@dataclass(frozen=True, kw_only=True)
class Sink:
    """Add the first visible keys of the sequence (StreamingLLM, arXiv:2309.17453).

    After left padding the first visible key is the first key of the text. Unlike in the paper,
    positions are not renumbered: keys keep the rotary embedding with which they were cached.
    """

    positions_only: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    tokens: int
    """Keys to add."""

    def __post_init__(self) -> None:
        require_tokens("Sink", self.tokens)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        return mask.add(inputs.visible_rank <= self.tokens, at_most=self.tokens)
