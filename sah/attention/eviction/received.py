"""The attention that each key of a context receives, summed over the context's queries."""

# B batch, H query heads, G key-value heads, K keys and queries, D head dimension

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.inputs import AttentionInputs, Visibility

# Bounds the memory of the weights of one block of queries, in bytes.
_BLOCK_BYTES = 2**28


def received_attention(
    query: Float[Tensor, "B H K D"],
    key: Float[Tensor, "B G K D"],
    scaling: float,
    softcap: float | None = None,
) -> Float[Tensor, "B H K"]:
    """Sum the causal attention weights of each key over all queries, in float32.

    Computed in blocks of queries, each with the keys up to its end: half of K² products.
    """
    batch, heads, length, _ = query.shape
    block = max(1, _BLOCK_BYTES // (4 * batch * heads * length))
    position = torch.arange(length, device=query.device)
    total = query.new_zeros(batch, heads, length, dtype=torch.float32)
    for start in range(0, length, block):
        end = min(length, start + block)
        visible = position[:end] <= position[start:end, None]
        inputs = AttentionInputs(
            query=query[:, :, start:end],
            key=key[:, :, :end],
            value=key[:, :, :end],
            visibility=Visibility(visible.expand(batch, 1, end - start, end)),
            scaling=scaling,
            softcap=softcap,
        )
        scores = inputs.scores.masked_fill(~inputs.visible, -torch.inf)
        total[:, :, :end] += torch.softmax(scores, dim=-1).sum(2)
    return total
