"""Weighted attention, computed over all keys or by reading only the selected ones."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N gathered keys, D/V dimensions
# S rows of queries per key-value head: H / G · Q

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention import host
from sah.attention.inputs import BLOCK_KEYS, AttentionInputs
from sah.attention.mask import AttentionMask

# Fixed cost of a call of gathering, in rows that dense attention could read in the same time.
GATHER_ROWS = 4096


def dense_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute Σ w·e^s·v / Σ w·e^s over all keys; the reference.

    Computed in float32 and returned in the dtype of the query. A query without selected keys
    (padding) gets zeros.
    """
    scores = inputs.scores
    if mask.sampled_weight is not None:
        scores = scores + mask.sampled_weight.log()
    share = _softmax(scores, mask.selected, mask.selected_count, inputs.sinks)
    batch, heads, queries, keys = share.shape
    groups = inputs.key.shape[1]
    stacked = share.view(batch, groups, inputs.group_size * queries, keys)  # B G S K
    output = _weighted_sum(stacked, inputs.value)
    return output.view(batch, heads, queries, -1).to(inputs.query.dtype)


def gathered_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute the same as `dense_attention`, reading only the selected keys and values.

    Reuses exact scores that a masker has already computed.
    """
    keys = mask.selected_keys
    if keys.position.shape[-1] == 0:
        return inputs.query.new_zeros(*inputs.query.shape[:3], inputs.value.shape[-1])
    scores = inputs.scores_at(keys)  # B H Q N
    if mask.sampled_weight is not None:
        # Padding slots point to key 0, whose weight may be anything; the softmax masks them.
        scores = scores + mask.sampled_weight.gather(-1, keys.position).log()
    share = _softmax(scores, keys.valid, mask.selected_count, inputs.sinks)
    return keys.weighted_sum(share, inputs.value).to(inputs.query.dtype)


def weighted_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute weighted attention by the cheaper of the two ways.

    Gathering reads B·H·N rows, dense attention B·G·K; perf/attention_paths.py measures the
    break-even point. N is the largest number of selected keys on the CPU, and the mask's bound on
    it elsewhere; without a bound, attention is dense.
    """
    # One query is a decode step; for more, dense scores are one large matrix product.
    if inputs.query.shape[2] == 1:
        most = int(mask.selected_count.max()) if host.holds(mask.selected) else mask.at_most
        batch, groups, keys = inputs.key.shape[:3]
        saved = batch * groups * keys - GATHER_ROWS
        if most is not None and batch * inputs.query.shape[1] * most < saved:
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
        # Without selected keys (padding) the softmax is NaN; such a query gets zeros.
        empty = count.unsqueeze(-1) == 0
        return share if host.holds(empty) and not empty.any() else share.masked_fill(empty, 0.0)
    sink = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)  # in the denominator only
    return torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]


def _weighted_sum(
    share: Float[Tensor, "B G S K"], value: Float[Tensor, "B G K V"]
) -> Float[Tensor, "B G S V"]:
    """Sum values in float32, converting one block of them at a time."""
    if value.dtype == torch.float32:
        return share @ value
    output = share.new_zeros(*share.shape[:3], value.shape[3])
    for start in range(0, value.shape[2], BLOCK_KEYS):
        block = slice(start, start + BLOCK_KEYS)
        output += share[..., block] @ value[:, :, block].float()
    return output
