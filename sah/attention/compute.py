"""Weighted attention, computed two ways: over all keys, and reading only what is selected."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N gathered keys, D/V dimensions

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention.inputs import BLOCK_KEYS, AttentionInputs
from sah.attention.mask import AttentionMask

# What gathering costs before it reads anything, in rows read the dense way.
GATHER_ROWS = 4096


def dense_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute Σ w·e^s·v / Σ w·e^s over all keys: the reference.

    In float32, returned in the dtype of the query. A query without any selected key
    (padding) gets zeros.
    """
    scores = inputs.scores
    if mask.sampled_weight is not None:
        scores = scores + mask.sampled_weight.log()
    share = _softmax(scores, mask.selected, mask.selected_count, inputs.sinks)
    batch, heads, queries, keys = share.shape
    groups = inputs.key.shape[1]
    stacked = share.view(batch, groups, inputs.group_size * queries, keys)
    output = _weighted_sum(stacked, inputs.value)
    return output.view(batch, heads, queries, -1).to(inputs.query.dtype)


def gathered_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute the same as `dense_attention`, reading only the selected keys and values.

    Exact scores that a masker computed already are used, not computed again.
    """
    keys = mask.keys
    if keys.position.shape[-1] == 0:
        return inputs.query.new_zeros(*inputs.query.shape[:3], inputs.value.shape[-1])
    scores = inputs.scores_at(keys)
    if mask.sampled_weight is not None:
        # A slot that only pads a short row points to key 0, whose weight may be anything.
        scores = scores + mask.sampled_weight.gather(-1, keys.position).log()
    share = _softmax(scores, keys.real, mask.selected_count, inputs.sinks)
    return keys.weighted_sum(share, inputs.value).to(inputs.query.dtype)


def weighted_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute weighted attention the cheaper way.

    Gathering reads H·N rows of keys where the dense way reads G·K. Where it pays is measured
    by perf/attention_paths.py.
    """
    # One query is the decode step; with more, dense scores are one large product.
    if inputs.query.shape[2] == 1:
        saved = inputs.key.shape[1] * inputs.key.shape[2] - GATHER_ROWS
        if inputs.query.shape[1] * int(mask.selected_count.max()) < saved:
            return gathered_attention(inputs, mask)
    return dense_attention(inputs, mask)


def _softmax(
    scores: Float[Tensor, "B H Q N"],
    selected: Bool[Tensor, "B H Q N"],
    count: Int[Tensor, "B H Q"],
    sinks: Float[Tensor, " H"] | None,
) -> Float[Tensor, "B H Q N"]:
    scores = scores.masked_fill(~selected, -torch.inf)
    if sinks is None:
        share = torch.softmax(scores, dim=-1)
        # A row without any selected key (padding) is all NaN: no key, no output.
        empty = count.unsqueeze(-1) == 0
        return share.masked_fill(empty, 0.0) if empty.any() else share
    sink = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]


def _weighted_sum(
    share: Float[Tensor, "B G S K"], value: Float[Tensor, "B G K V"]
) -> Float[Tensor, "B G S V"]:
    """Sum values in float32, converting a block of them at a time."""
    if value.dtype == torch.float32:
        return share @ value
    output = share.new_zeros(*share.shape[:3], value.shape[3])
    for start in range(0, value.shape[2], BLOCK_KEYS):
        block = slice(start, start + BLOCK_KEYS)
        output += share[..., block] @ value[:, :, block].float()
    return output
