"""Weighted attention, computed two ways: over all keys, and reading only what is selected."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N gathered keys, D/V dimensions

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention.inputs import BLOCK_KEYS, AttentionInputs
from sah.attention.mask import AttentionMask

# What gathering costs before it reads anything, in rows read the dense way.
GATHER_ROWS = 4096

with warnings.catch_warnings():
    # torch says once per process that its sparse matrices are in beta; said here, unheard.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


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
    position, real = _selected_positions(mask)
    if position.shape[-1] == 0:
        return inputs.query.new_zeros(*inputs.query.shape[:3], inputs.value.shape[-1])
    if "scores" in vars(inputs):
        scores = inputs.scores.gather(-1, position)
    else:
        scores = inputs.scaling * _gathered_products(inputs, position)
        if inputs.softcap is not None:
            scores = inputs.softcap * torch.tanh(scores / inputs.softcap)
    if mask.sampled_weight is not None:
        # A slot that only pads a short row points to key 0, whose weight may be anything.
        scores = scores + mask.sampled_weight.gather(-1, position).log()
    share = _softmax(scores, real, mask.selected_count, inputs.sinks)
    return _gathered_sum(inputs, position, share).to(inputs.query.dtype)


def weighted_attention(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q V"]:
    """Compute weighted attention the cheaper way.

    Gathering reads H·N rows of keys where the dense way reads G·K. Where it pays is measured
    by benchmarks/attention_paths.py.
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


def _selected_positions(
    mask: AttentionMask,
) -> tuple[Int[Tensor, "B H Q N"], Bool[Tensor, "B H Q N"]]:
    """Positions of the selected keys, N being the longest row, and which slots are real."""
    selected, counts = mask.selected, mask.selected_count.unsqueeze(-1)
    *shape, keys = selected.shape
    longest = int(counts.max())
    # NumPy finds them faster than torch on the CPU.
    on_cpu = selected.device.type == "cpu"
    flat = selected.reshape(-1)
    found = torch.from_numpy(np.flatnonzero(flat.numpy())) if on_cpu else flat.nonzero().squeeze(-1)
    first = torch.arange(0, flat.shape[0], keys, device=flat.device).view(*shape, 1)
    real = torch.arange(longest, device=flat.device) < counts
    if len(found) == real.numel():
        return found.view(real.shape) - first, real
    slots = first.repeat(1, 1, 1, longest)
    return slots.masked_scatter_(real, found) - first, real


def _gathered_products(
    inputs: AttentionInputs, position: Int[Tensor, "B H Q N"]
) -> Float[Tensor, "B H Q N"]:
    """q·k in float32 of each query with the keys at its positions."""
    rows, place = _as_rows(inputs.key, position)
    query = inputs.query.flatten(0, 2)
    if rows.dtype == query.dtype == torch.float32 and rows.device.type == "cpu":
        # Reads the keys where they lie; only the pattern of the sparse matrix matters.
        ends = torch.arange(len(query) + 1) * position.shape[-1]
        pattern = torch.sparse_csr_tensor(
            ends,
            place.flatten(),
            query.new_zeros(place.numel()),
            (len(query), len(rows)),
            check_invariants=False,
        )
        products: Tensor = torch.sparse.sampled_addmm(pattern, query, rows.T, beta=0.0).values()
        return products.view(position.shape)
    key = rows.index_select(0, place.flatten()).view(*place.shape, -1)
    return (key.float() @ query.float().unsqueeze(-1)).view(position.shape)


def _gathered_sum(
    inputs: AttentionInputs, position: Int[Tensor, "B H Q N"], share: Float[Tensor, "B H Q N"]
) -> Float[Tensor, "B H Q V"]:
    """Sum the values at each query's positions in float32."""
    rows, place = _as_rows(inputs.value, position)
    if rows.dtype == torch.float32:
        # Reads the values where they lie.
        output = torch.nn.functional.embedding_bag(
            place, rows, per_sample_weights=share.flatten(0, 2), mode="sum"
        )
    else:
        value = rows.index_select(0, place.flatten()).view(*place.shape, -1)
        output = share.flatten(0, 2).unsqueeze(1) @ value.float()
    return output.view(*position.shape[:3], -1)


def _as_rows(
    tensor: Float[Tensor, "B G K D"], position: Int[Tensor, "B H Q N"]
) -> tuple[Float[Tensor, "rows D"], Int[Tensor, "BHQ N"]]:
    """All vectors as the rows of one matrix, and where those at the positions are in it.

    A view where the vectors lie at multiples of their length, as they do in a cache; rows that
    are no vectors (room kept for later keys) are never asked for.
    """
    batch, groups, keys, dim = tensor.shape
    *strides, last = tensor.stride()
    if last != 1 or any(stride % dim for stride in strides):
        tensor = tensor.contiguous()
        strides = [groups * keys * dim, keys * dim, dim]
    of_batch, of_group, of_key = (stride // dim for stride in strides)
    count = (batch - 1) * of_batch + (groups - 1) * of_group + (keys - 1) * of_key + 1
    rows = tensor.as_strided((count, dim), (dim, 1))
    heads = position.shape[1]
    head = torch.arange(heads, device=position.device).view(heads, 1, 1)
    first = head.div(heads // groups, rounding_mode="floor") * of_group
    if batch > 1:
        first = first + torch.arange(batch, device=position.device).view(-1, 1, 1, 1) * of_batch
    return rows, (position * of_key + first).flatten(0, 2)
