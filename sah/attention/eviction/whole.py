"""From the rows that a layer holds back to the whole sequence, for what is compared with dense."""

# B batch, H query heads, G key-value heads, Q queries, C keys of the context, N kept keys,
# A keys after the context, K = N + A rows, S = C + A keys of the sequence

from dataclasses import replace

import torch
from torch import Tensor

from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask
from sah.attention.visibility import Visibility


def whole(inputs: AttentionInputs, mask: AttentionMask) -> tuple[AttentionInputs, AttentionMask]:
    """Return the inputs and the mask of a call over the whole sequence, evicted keys included.

    An evicted key is visible and not selected. Without eviction, both are returned unchanged.
    """
    kept = inputs.kept
    if kept is None:
        return inputs, mask
    after = slice(kept.rows, None)
    # Causal, and not `inputs.visible`: a key may also have been evicted after the context.
    sequence = torch.arange(kept.dropped + inputs.key.shape[2], device=inputs.key.device)
    query = inputs.first_position + kept.dropped + sequence[: inputs.query.shape[2]]
    visible = (sequence <= query[:, None]).expand(inputs.query.shape[0], 1, -1, -1)  # B 1 Q S
    entire = replace(
        inputs,
        key=torch.cat([kept.key, inputs.key[:, :, after]], dim=2),
        value=torch.cat([kept.value, inputs.value[:, :, after]], dim=2),
        visibility=Visibility(visible),
        first_position=inputs.first_position + kept.dropped,
        context_length=kept.key.shape[2],
        kept=None,
    )
    position = kept.position.repeat_interleave(inputs.group_size, dim=1).unsqueeze(2)  # B H 1 N

    def scattered(rows: Tensor) -> Tensor:
        place = position.expand(*rows.shape[:3], -1)
        context = rows.new_zeros(*rows.shape[:3], kept.key.shape[2])
        # Padding, which is never selected, repeats a place: selected rows must not be lost.
        context.scatter_reduce_(-1, place, rows[..., : kept.rows], reduce="amax")
        return torch.cat([context, rows[..., after]], dim=-1)

    weight = mask.sampled_weight
    selected = mask.selected.to(torch.uint8)
    return entire, AttentionMask(
        visible=visible,
        selected=scattered(selected).bool(),
        sampled_weight=None if weight is None else scattered(weight),
    )
