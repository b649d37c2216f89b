"""The fewest keys that hold a given share of the attention mass."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.selection import require_fraction, select_from_threshold, sort_descending


@dataclass(frozen=True, kw_only=True)
class OracleTopP:
    """Add the highest-scoring candidates until the selection holds `p` of the softmax mass.

    The idea of Twilight (arXiv:2502.02770), with exact scores instead of its quantised estimate.
    The mass is that of the full softmax over the visible keys, without a model's own attention
    sinks. Keys that are already selected count: the fewest keys that reach `p` are added, none if
    the selection already holds it.
    """

    batched: ClassVar[bool] = True
    budget_options: ClassVar = ("p",)

    p: float
    """Share of the softmax mass, in (0, 1]."""

    def __post_init__(self) -> None:
        require_fraction("OracleTopP", "p", self.p)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        if self.p == 1:
            # The cumulative sum rounds to 1 before it reaches the last key.
            return mask.add(mask.candidates)
        share = torch.softmax(inputs.scores.masked_fill(~inputs.visible, -torch.inf), dim=-1)
        held = share.where(mask.selected, 0.0).sum(-1, keepdim=True)  # B H Q 1
        candidates = share.masked_fill(~mask.candidates, -1.0)  # below every share
        ranked = sort_descending(candidates)
        # Mass that is held before each key is added, the largest first.
        before = held + ranked.clamp(min=0).cumsum(-1) - ranked.clamp(min=0)
        count = ((before < self.p) & (ranked >= 0)).sum(-1, keepdim=True)
        last = ranked.gather(-1, (count - 1).clamp(min=0))
        return mask.add(select_from_threshold(candidates, last, count))
