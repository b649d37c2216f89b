"""Weighted attention, computed two ways: over all keys, and reading only what is selected."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N gathered keys, D/V dimensions

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.inputs import BLOCK_KEYS, AttentionInputs
from sah.attention.mask import AttentionMask


def dense_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute Σ w·e^s·v / Σ w·e^s over all keys: the reference.

    In float32, returned in the dtype of the query. A query without any selected key
    (padding) gets zeros.
    """
    scores = inputs.scores
    if mask.sampled_weight is not None:
        scores = scores + mask.sampled_weight.log()
    share = _softmax(scores, mask.selected, inputs.sinks)
    batch, heads, queries, keys = share.shape
    groups = inputs.key.shape[1]
    stacked = share.view(batch, groups, inputs.group_size * queries, keys)
    output = _weighted_sum(stacked, inputs.value)
    return output.view(batch, heads, queries, -1).to(inputs.query.dtype)


def gathered_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute the same as `dense_attention`, reading only the selected keys and values."""
    batch, heads = mask.selected.shape[:2]
    position, real = _gather_positions(mask.selected)
    row = torch.arange(batch, device=position.device)[:, None, None, None]
    group = torch.arange(heads, device=position.device)[None, :, None, None] // inputs.group_size
    key = inputs.key[row, group, position].float()  # B H Q N D
    value = inputs.value[row, group, position].float()
    scores = (key @ inputs.query.float().unsqueeze(-1)).squeeze(-1) * inputs.scaling
    if inputs.softcap is not None:
        scores = inputs.softcap * torch.tanh(scores / inputs.softcap)
    if mask.sampled_weight is not None:
        # A slot that only pads a short row points to key 0, whose weight may be anything.
        scores = scores + mask.sampled_weight.gather(-1, position).log()
    share = _softmax(scores, real, inputs.sinks)
    output = (share.unsqueeze(-2) @ value).squeeze(-2)
    return output.to(inputs.query.dtype)


def weighted_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute weighted attention the cheaper way.

    Gathering reads H·Q·N rows of keys where the dense way reads G·K, and copies them, which
    pays below a sixth of the rows (benchmarks/attention_paths.py). With the exact scores at
    hand, half of the dense way is done already.
    """
    keys = inputs.key.shape[1] * inputs.key.shape[2]
    queries = inputs.query.shape[1] * inputs.query.shape[2]
    # One query is the decode step; with more, dense scores are one large product.
    if inputs.query.shape[2] == 1 and "scores" not in vars(inputs):
        if 6 * queries * int(mask.selected_count.max()) < keys:
            return gathered_attention(inputs, mask)
    return dense_attention(inputs, mask)


def _softmax(
    scores: Float[Tensor, "B H Q N"],
    selected: Bool[Tensor, "B H Q N"],
    sinks: Float[Tensor, " H"] | None,
) -> Float[Tensor, "B H Q N"]:
    scores = scores.masked_fill(~selected, -torch.inf)
    if sinks is None:
        share = torch.softmax(scores, dim=-1)
        # A row without any selected key (padding) is all NaN: no key, no output.
        empty = ~selected.any(-1, keepdim=True)
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


def _gather_positions(
    selected: Bool[Tensor, "B H Q K"],
) -> tuple[Tensor, Bool[Tensor, "B H Q N"]]:
    """Positions of the selected keys, N being the longest row, and which slots are real."""
    shape = selected.shape[:3]
    flat = selected.flatten(0, 2)
    counts = flat.sum(-1)
    longest = int(counts.max())
    row, key = flat.nonzero(as_tuple=True)
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(row), device=row.device) - first[row]
    position = row.new_zeros(len(flat), longest)
    position[row, slot] = key
    real = torch.arange(longest, device=row.device) < counts[:, None]
    return position.view(*shape, longest), real.view(*shape, longest)
