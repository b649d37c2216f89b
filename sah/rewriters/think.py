"""Keys without the channels that matter least to the last queries."""

# B batch, H query heads, G key-value heads, W window queries, N kept keys, D channels

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten
from sah.attention.eviction.witness import Witness
from sah.attention.selection import require_fraction, select_top


@dataclass(frozen=True, kw_only=True)
class ThinK:
    """Set the least important channels of the keys to zero (ThinK, arXiv:2407.21018).

    The importance of a channel is the mean of q² over the last queries times the mean of k² over
    the kept keys, which ranks channels as eq. 5 of the paper does. As in kvpress, it is averaged
    over the query heads of each key-value head, and all keys of the context are pruned.
    Unlike the paper, keys of the question and the answer keep all channels.
    """

    budget_options: ClassVar = ("fraction",)

    fraction: float = 0.5
    """Share of the channels to keep, in (0, 1]; rounded up."""
    window: int = 32
    """Queries at the end of the context that decide; 32 as in kvpress."""

    def __post_init__(self) -> None:
        require_fraction("ThinK", "fraction", self.fraction)
        if self.window < 1:
            raise ValueError(f"ThinK: window must be at least 1, got {self.window}")

    @property
    def witness(self) -> Witness:
        """The window's queries."""
        return Witness(last_queries=self.window)

    def channels(self, layer: ContextLayer, kept: KeptKeys) -> Bool[Tensor, "B G D"]:
        """Return the channels that stay."""
        query = layer.witnessed.queries[:, :, -self.window :].float()  # B H W D
        key = kept.rows_of(kept.key).float()
        occupied = kept.occupied.unsqueeze(-1)  # B G N 1
        squares = (key.square() * occupied).sum(2) / occupied.sum(2)  # B G D
        importance = layer.mean_over_group(query.square().mean(2)) * squares
        # In floating point 0.7 * 10 may be slightly more than 7, which must not become 8.
        count = max(1, math.ceil(key.shape[-1] * self.fraction - 1e-9))
        limit = torch.tensor(count, device=key.device).view(1, 1, 1, 1)
        return select_top(importance.unsqueeze(2), None, limit, count).squeeze(2)

    def at_context(self, layer: ContextLayer, kept: KeptKeys) -> Rewritten:
        """Return the kept rows with zeros in the channels that go.

        Packed, the keys have the other channels only, and each head a bit for every channel.
        """
        channels = self.channels(layer, kept)
        key, value = kept.rows_of(kept.key), kept.rows_of(kept.value)
        rows = int(kept.occupied.sum())
        by_key = int(channels[0, 0].sum()) * key.element_size()
        bitmaps = channels.shape[0] * channels.shape[1] * -(-channels.shape[2] // 8)
        return Rewritten(
            key=key.masked_fill(~channels.unsqueeze(2), 0),
            value=value,
            packed_bytes=rows * (by_key + value[0, 0, 0].nbytes) + bitmaps,
        )
