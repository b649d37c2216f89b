"""Scores of coded keys: sums over the entries that a key's codes look up in a query's tables."""

# B batch, G key-value heads, S query rows per group, K keys
# T tables per query, C entries per table, R entries of all tables: T·C

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor


def sum_of_lookups(
    tables: Float[Tensor, "B G T S C"], codes: Integer[Tensor, "B G T K"]
) -> Float[Tensor, "B G S K"]:
    """Sum the entries that each key's codes look up; fast for few tables.

    By definition

    scores[b, g, s, k] = Σ_t tables[b, g, t, s, codes[b, g, t, k]]
    """
    batch, groups, count, rows, _ = tables.shape
    scores = tables.new_zeros(batch, groups, rows, codes.shape[-1])
    for table in range(count):
        entry = codes[:, :, table, None].long().expand_as(scores)  # B G S K
        scores += tables[:, :, table].gather(-1, entry)
    return scores


def sum_of_looked_up_rows(
    tables: Float[Tensor, "R S"], rows: Int[Tensor, "K T"]
) -> Float[Tensor, "S K"]:
    """Do the same for one key-value head, with all tables stacked. Fast for many tables.

    The row of table t and code c is t·C + c, and holds the entries of all queries. `tables` must
    be contiguous: embedding_bag is fifty times slower otherwise. Equal to

        tables[rows].sum(1).T
    """
    return torch.nn.functional.embedding_bag(rows, tables, mode="sum").T
