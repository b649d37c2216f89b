"""Random layers of a context, as patterns see them."""

import torch

from sah.attention.prefill.pattern import PrefillLayer


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
