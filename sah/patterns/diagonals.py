"""Diagonals of an attention matrix: keys at one distance before their query."""

# B batch, H query heads, W last queries, K keys or distances, N blocks of queries, M blocks of keys

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad


def diagonal_sums(weights: Float[Tensor, "B H W K"]) -> Float[Tensor, "B H K"]:
    """Sum the weights of the last queries by the distance between query and key, from 0 on."""
    queries, keys = weights.shape[2:]
    # Row i moves W - 1 - i places to the right: keys at equal distances end up in one column.
    rows = pad(weights.flip(2), (0, queries)).flatten(2)[..., :-queries]
    total: Tensor = rows.unflatten(2, (queries, -1)).sum(2)[..., :keys].flip(-1)
    return total


def touched_blocks(
    selected: Bool[Tensor, "B H K"], query_block: int, key_block: int
) -> Bool[Tensor, "B H N M"]:
    """Return the blocks of queries and keys that the diagonals at the selected distances touch."""
    length = selected.shape[-1]
    query_start = torch.arange(0, length, query_block, device=selected.device)
    key_start = torch.arange(0, length, key_block, device=selected.device)
    query_end = (query_start + query_block).clamp(max=length)
    # From the last key to the first query, and from the first key to the last query, of a block.
    nearest = query_start[:, None] - (key_start + key_block - 1)  # N M
    beyond = query_end[:, None] - key_start
    count = pad(selected.cumsum(-1, dtype=torch.int32), (1, 0))  # B H K+1; of smaller distances
    touched: Tensor = count[..., beyond.clamp(0, length)] > count[..., nearest.clamp(0, length)]
    return touched
