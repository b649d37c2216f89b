"""Random layers of a context, and the (query, key) pairs that a pattern reads."""

import torch
from torch import Tensor

from sah.attention.prefill.pattern import PrefillLayer, Reads


def prefill_layer(
    length: int,
    *,
    heads: int = 4,
    groups: int = 2,
    dimension: int = 8,
    batch: int = 1,
    softcap: float | None = None,
    seed: int = 0,
) -> PrefillLayer:
    """Queries and keys drawn normally, of which some attend sharply and some broadly."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.linspace(0.1, 3, heads).view(1, -1, 1, 1)
    return PrefillLayer(
        query=sharpness * torch.randn(batch, heads, length, dimension, generator=generator),
        key=torch.randn(batch, groups, length, dimension, generator=generator),
        scaling=dimension**-0.5,
        layer_idx=0,
        softcap=softcap,
    )


def pairs_read(reads: Reads, length: int) -> Tensor:
    """Return which key each query reads, [B, H, K, K], by the definition of `Reads`."""
    position = torch.arange(length)
    ahead = position[:, None] - position
    pairs = (ahead < reads.window).view(1, 1, length, length)
    if reads.columns is not None:
        pairs = pairs | reads.columns.unsqueeze(2)
    if reads.blocks is not None:
        rows = reads.blocks.repeat_interleave(reads.query_block, 2)[:, :, :length]
        pairs = pairs | rows.repeat_interleave(reads.key_block, 3)[..., :length]
    pairs = pairs | (position >= length - reads.last_queries)[:, None]
    return pairs & (ahead >= 0)
