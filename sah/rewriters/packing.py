"""Rounding to small integers in groups, as packed caches store keys and values."""

# B batch, G key-value heads, N tokens, D channels

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten

Along = Literal["tokens", "channels"]
_BITS = (2, 4, 8, 16)


def require_packing(name: str, bits: int, group: int) -> None:
    """Check the width of the integers and the size of the groups.

    Raises:
        ValueError: naming the value and the limit.
    """
    if bits not in _BITS:
        raise ValueError(f"{name}: bits must be 2, 4, 8 or 16, got {bits}")
    if group < 1:
        raise ValueError(f"{name}: group must be at least 1, got {group}")


def rounded(
    rows: Float[Tensor, "B G N D"],
    chosen: Bool[Tensor, "B G N"],
    *,
    bits: int,
    group: int,
    along: Along,
) -> tuple[Float[Tensor, "B G N D"], int]:
    """Round the chosen rows to integers of `bits` bits and back.

    Each group of neighbours along tokens or channels has 2^bits levels, evenly spaced from its
    minimum to its maximum; the last group may be shorter. Minimum and spacing are stored in the
    data type of the rows.

    Returns:
        The rows, those that are not chosen unchanged, and the bytes of the chosen ones: codes, and
        minimum and spacing of each group.
    """
    marks = chosen.unsqueeze(-1).expand_as(rows)
    values, chosen_values = (_grouped(part, group, along) for part in (rows.float(), marks))
    occupied = chosen_values.any(-1, keepdim=True)
    low = values.masked_fill(~chosen_values, torch.inf).amin(-1, keepdim=True)
    high = values.masked_fill(~chosen_values, -torch.inf).amax(-1, keepdim=True)
    low, high = low.where(occupied, 0.0), high.where(occupied, 0.0)
    levels = 2**bits - 1
    # Arithmetic is in float32, with the values as they are stored.
    low, step = (part.to(rows.dtype).float() for part in (low, (high - low) / levels))
    codes = ((values - low) / step.where(step > 0, 1.0)).round().clamp(0, levels)
    found = (low + codes * step).flatten(-2)
    if along == "tokens":
        found = found[..., : rows.shape[2]].transpose(2, 3)
    else:
        found = found[..., : rows.shape[3]]
    code_bytes = -(-int(chosen_values.sum()) * bits // 8)
    group_bytes = int(occupied.sum()) * 2 * rows.element_size()
    return found.to(rows.dtype).where(marks, rows), code_bytes + group_bytes


def quantised(
    kept: KeptKeys,
    chosen: Bool[Tensor, "B G N"],
    *,
    bits: int,
    group: int,
    along: Along,
) -> Rewritten:
    """Round the chosen rows of the keys, in groups along `along`, and of the values.

    The values of a token are grouped along their channels.
    """
    chosen = chosen & kept.occupied
    exact = int((kept.occupied & ~chosen).sum())
    found, packed_bytes = [], 0
    for tensor, direction in ((kept.key, along), (kept.value, "channels")):
        rows = kept.rows_of(tensor)
        new, used = rounded(rows, chosen, bits=bits, group=group, along=direction)
        found.append(new)
        packed_bytes += used + exact * rows[0, 0, 0].nbytes
    return Rewritten(key=found[0], value=found[1], packed_bytes=packed_bytes)


def _grouped(rows: Tensor, group: int, along: Along) -> Tensor:
    """Return the rows in groups as the last dimension, the last one padded with zeros."""
    rows = rows.transpose(2, 3) if along == "tokens" else rows
    group = min(group, rows.shape[-1])
    whole: Tensor = pad(rows, (0, -rows.shape[-1] % group))
    grouped: Tensor = whole.unflatten(-1, (-1, group))
    return grouped
