"""Attention weights of queries at the end of a sequence, and what each key receives of them."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sah.attention.inputs import AttentionInputs
from sah.attention.visibility import Visibility

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
    if age is None:
        scores = inputs.scores
        # Only the last Q keys can follow a query.
        last = slice(length - queries, None)
        scores[..., last].masked_fill_(~visible[..., last], -torch.inf)
        return softmax_beside_sinks(scores, sinks)
    scores = inputs.scores.masked_fill(~visible, -torch.inf)
    return softmax_beside_sinks(scores, sinks).masked_fill(~visible, 0.0)


def softmax_beside_sinks(
    scores: Float[Tensor, "B H Q K"], sinks: Float[Tensor, " H"] | None
) -> Float[Tensor, "B H Q K"]:
    """Return the softmax over the keys, without the share that attention sinks take."""
    if sinks is None:
        return torch.softmax(scores, dim=-1)
    sink = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]


def received_attention(
    query: Float[Tensor, "B H Q D"],
    key: Float[Tensor, "B G K D"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H K"]:
    """Sum the causal attention weights of each key over the last Q positions, in float32.

    Computed in blocks of queries, each with the keys up to its end: for a whole sequence, half of
    K² products.
    """
    total = query.new_zeros(*query.shape[:2], key.shape[2], dtype=torch.float32)
    for weights in _blocks(query, key, scaling=scaling, softcap=softcap, sinks=sinks):
        total[:, :, : weights.shape[3]] += weights.sum(2)
    return total


def strongest_attention(
    query: Float[Tensor, "B H Q D"],
    key: Float[Tensor, "B G K D"],
    *,
    scaling: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H K"]:
    """Return each key's largest causal attention weight over the last Q positions, in float32.

    Computed in blocks of queries, as `received_attention`.
    """
    most = query.new_zeros(*query.shape[:2], key.shape[2], dtype=torch.float32)
    for weights in _blocks(query, key, scaling=scaling, softcap=softcap, sinks=sinks):
        so_far = most[:, :, : weights.shape[3]]
        torch.maximum(so_far, weights.amax(2), out=so_far)
    return most


def _blocks(
    query: Float[Tensor, "B H Q D"], key: Float[Tensor, "B G K D"], **options: Any
) -> Iterator[Float[Tensor, "B H block keys"]]:
    """Yield the weights of blocks of the last Q positions, each over the keys up to its end."""
    batch, heads, queries, _ = query.shape
    length = key.shape[2]
    block_bytes = _BLOCK_BYTES.get(query.device.type, _OTHER_BLOCK_BYTES)
    block = max(1, block_bytes // (4 * batch * heads * length))
    for start in range(0, queries, block):
        end = min(queries, start + block)
        seen = length - queries + end
        yield attention_weights(query[:, :, start:end], key[:, :, :seen], **options)
