"""Attention weights of queries at the end of a sequence, and what each key receives of them."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention.inputs import AttentionInputs, Visibility

# Bytes of the weights of one block of queries: on a CPU they fit into its cache, which is four
# times faster; on other devices they bound the memory.
_BLOCK_BYTES = {"cpu": 2**23}
_OTHER_BLOCK_BYTES = 2**28


def attention_weights(
    query: Float[Tensor, "B H Q D"],
    key: Float[Tensor, "B G K D"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """Return the causal attention weights of the last Q positions over all keys, in float32.

    Soft-capped like the model's scores, and without the share that its attention sinks take.
    """
    batch, heads, queries, length = *query.shape[:3], key.shape[2]
    position = torch.arange(length, device=query.device)
    visible = position <= position[length - queries :, None]  # Q K
    inputs = AttentionInputs(
        query=query,
        key=key,
        value=key,
        visibility=Visibility(visible.expand(batch, 1, queries, length)),
        scaling=scaling,
        softcap=softcap,
    )
    scores = inputs.scores
    # Only the last Q keys can follow a query.
    scores[..., length - queries :].masked_fill_(~visible[:, length - queries :], -torch.inf)
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    sink = sinks.float().view(1, heads, 1, 1).expand(batch, heads, queries, 1)
    return torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]


def received_attention(
    query: Float[Tensor, "B H K D"],
    key: Float[Tensor, "B G K D"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H K"]:
    """Sum the causal attention weights of each key over all queries, in float32.

    Computed in blocks of queries, each with the keys up to its end: half of K² products.
    """
    batch, heads, length, _ = query.shape
    block_bytes = _BLOCK_BYTES.get(query.device.type, _OTHER_BLOCK_BYTES)
    block = max(1, block_bytes // (4 * batch * heads * length))
    total = query.new_zeros(batch, heads, length, dtype=torch.float32)
    for start in range(0, length, block):
        end = min(length, start + block)
        weights = attention_weights(
            query[:, :, start:end], key[:, :, :end], scaling=scaling, softcap=softcap, sinks=sinks
        )
        total[:, :, :end] += weights.sum(2)
    return total
