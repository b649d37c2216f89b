"""Scores of coded keys: sums over the entries that a key's codes look up in a query's tables."""

# B batch, G key-value heads, S query rows per group, K keys
# T tables per query, C entries per table, N key-value heads of all rows of the batch

from dataclasses import dataclass

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
    shape = (*tables.shape[:2], tables.shape[3], codes.shape[-1])
    entries = codes.long().unsqueeze(3)  # B G T 1 K
    parts = (
        tables[:, :, table].gather(-1, entries[:, :, table].expand(shape))  # B G S K
        for table in range(tables.shape[2])
    )
    scores = next(parts)
    for part in parts:
        scores += part
    return scores


@dataclass(frozen=True, kw_only=True)
class LookUpPlaces:
    """Constants of `sum_of_looked_up_rows`, which all layers of a step can share."""

    first: Int[Tensor, "N 1 T"]
    """Row of code 0 in each table."""
    starts: Int[Tensor, " NK"]
    """Where the codes of each key start."""

    @classmethod
    def of(cls, heads: int, tables: int, keys: int, device: torch.device) -> "LookUpPlaces":
        """Return the places of look-ups for at most this many heads."""
        number = torch.arange(heads * max(tables, keys), dtype=torch.int32, device=device)
        return cls(
            first=number[: heads * tables].view(heads, 1, tables),
            starts=number[: heads * keys] * tables,
        )


def sum_of_looked_up_rows(
    tables: Float[Tensor, "C N T S"], codes: Integer[Tensor, "N K T"], places: LookUpPlaces
) -> Float[Tensor, "N K S"]:
    """Do the same for several key-value heads at once; fast for many tables.

    The entries of all queries lie side by side, and are read together. By definition

        scores[n, k] = Σ_t tables[codes[n, k, t], n, t]

    `tables` must be contiguous. Codes of two bytes are converted on the way: the look-up itself
    takes seven times as long, so that storing four bytes would save little.
    """
    heads, keys, count = codes.shape
    # In one table of rows, entry c of table t of head n is row (c·N + n)·T + t.
    rows = torch.add(places.first[:heads], codes, alpha=heads * count)  # N K T
    sums: Tensor = torch.embedding_bag(
        tables.view(-1, tables.shape[-1]), rows.reshape(-1), places.starts[: heads * keys]
    )[0]
    return sums.view(heads, keys, -1)
