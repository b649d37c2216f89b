"""All visible keys: a control that runs the sparse code at density 1."""

from dataclasses import dataclass
from typing import ClassVar

from sah.attention import AttentionInputs, AttentionMask


@dataclass(frozen=True, kw_only=True)
class Causal:
    """Add all visible keys.

    The output equals dense attention up to rounding; `sparse_attention=dense` runs the model's
    own kernels instead.
    """

    positions_only: ClassVar[bool] = True
    batched: ClassVar[bool] = True

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        return mask.add(inputs.visible)
