"""Attention weights of queries at the end of a sequence, and what each key receives of them."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sah.attention.inputs import AttentionInputs, Visibility

# Bounds the memory of the weights of one block of queries, in bytes.
_BLOCK_BYTES = 2**28


def attention_weights(
    query: Float[Tensor, "B H Q D"],
    key: Float[Tensor, "B G K D"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
    age: Int[Tensor, "B G K"] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """Return the causal attention weights of the last Q positions over all keys, in float32.

    Soft-capped like the model's scores, and without the share that its attention sinks take. A
    query that sees no key gives nothing.

    Args:
        query: at the last positions of the sequence.
        key: those of the sequence, or some of them.
        scaling: of the products.
        softcap: as in `AttentionInputs`.
        sinks: as in `AttentionInputs`.
        age: positions between each key and the last query; None if no key is missing.
    """
    batch, heads, queries, length = *query.shape[:3], key.shape[2]
    back = torch.arange(queries - 1, -1, -1, device=query.device)
    if age is None:
        visible = torch.arange(length - 1, -1, -1, device=query.device) >= back[:, None]  # Q K
        visible = visible.expand(batch, 1, queries, length)
    else:
        visible = age.unsqueeze(2) >= back.unsqueeze(1)  # B G Q K
        visible = visible.repeat_interleave(heads // key.shape[1], dim=1)
    inputs = AttentionInputs(
        query=query,
        key=key,
        value=key,
        visibility=Visibility(visible),
        scaling=scaling,
        softcap=softcap,
    )
    scores = inputs.scores.masked_fill(~inputs.visible, -torch.inf)
    weights = softmax_beside_sinks(scores, sinks)
    return weights if age is None else weights.masked_fill(~inputs.visible, 0.0)


def softmax_beside_sinks(
    scores: Float[Tensor, "B H Q K"], sinks: Float[Tensor, " H"] | None
) -> Float[Tensor, "B H Q K"]:
    """Return the softmax over the keys, without the share that attention sinks take."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    sink = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
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
    block = max(1, _BLOCK_BYTES // (4 * batch * heads * length))
    total = query.new_zeros(batch, heads, length, dtype=torch.float32)
    for start in range(0, length, block):
        end = min(length, start + block)
        weights = attention_weights(
            query[:, :, start:end], key[:, :, :end], scaling=scaling, softcap=softcap, sinks=sinks
        )
        total[:, :, :end] += weights.sum(2)
    return total
