"""As many of the best keys as hold a given share of the attention."""

from dataclasses import dataclass

import torch

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.selection import require_fraction, select_from_threshold, sort_descending


@dataclass(frozen=True, kw_only=True)
class OracleTopP:
    """Add the highest-scoring candidates until the selection holds `p` of the softmax mass.

    The mass is that of the full softmax over the visible keys, and the keys selected
    already count: the idea of Twilight (arXiv:2502.02770) with exact scores instead of
    its quantised estimate. The fewest keys that reach `p` are added; none if the
    selection holds it already. A model's own attention sinks take no part in the mass.
    """

    p: float
    """Share of the mass, in (0, 1]."""

    def __post_init__(self) -> None:
        require_fraction("OracleTopP", "p", self.p)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        if self.p == 1:
            # The sum of all shares rounds to 1 before the last key is reached.
            return mask.add(mask.candidates)
        share = torch.softmax(inputs.scores.masked_fill(~inputs.visible, -torch.inf), dim=-1)
        held = share.where(mask.selected, 0.0).sum(-1, keepdim=True)
        candidates = share.masked_fill(~mask.candidates, -1.0)
        ranked = sort_descending(candidates)
        before = held + ranked.clamp(min=0).cumsum(-1) - ranked.clamp(min=0)
        count = ((before < self.p) & (ranked >= 0)).sum(-1, keepdim=True)
        last = ranked.gather(-1, (count - 1).clamp(min=0))
        return mask.add(select_from_threshold(candidates, last, count))
