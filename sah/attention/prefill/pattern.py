"""What a pattern of sparse prefill is given, and what it answers."""

# B batch, H query heads, G key-value heads, K positions of the context, D head dimension
# N blocks of queries, M blocks of keys

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PrefillLayer:
    """Queries and keys of a whole context in one layer, after the rotary embedding."""

    query: Float[Tensor, "B H K D"]
    key: Float[Tensor, "B G K D"]
    scaling: float
    layer_idx: int
    softcap: float | None = None
    """Scores s become softcap * tanh(s / softcap) (Gemma 2)."""
    seed: int = 0
    """Derived from the experiment's seed and the layer."""

    @property
    def length(self) -> int:
        """Tokens of the context, K."""
        return self.query.shape[2]

    @property
    def group_size(self) -> int:
        """Query heads per key-value head, H / G."""
        return self.query.shape[1] // self.key.shape[1]


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Keys that the queries of a context read, per query head: the union of all parts.

    No query reads a later key, whatever the parts say.
    """

    window: int = 1
    """Each query's last keys, its own included; at least 1."""
    columns: Bool[Tensor, "#B #H K"] | None = None
    """Keys that every query reads."""
    blocks: Bool[Tensor, "#B #H N M"] | None = None
    """Whether block n of `query_block` queries reads block m of `key_block` keys. Blocks are cut at
    multiples of their size; the last ones may be shorter."""
    query_block: int = 64
    key_block: int = 64
    last_queries: int = 0
    """Queries at the end of the context that read every key."""

    def mask(self, length: int) -> Bool[Tensor, "#B #H K K"]:
        """Return which keys each query of a context reads, as one mask: for short contexts.

        `sah.attention.prefill.compute` computes the same without it.
        """
        device = next((p.device for p in (self.columns, self.blocks) if p is not None), None)
        position = torch.arange(length, device=device)
        age = position[:, None] - position  # K K
        read = ((age < self.window) | (position[:, None] >= length - self.last_queries))[None, None]
        if self.columns is not None:
            read = read | self.columns.unsqueeze(2)
        if self.blocks is not None:
            by_query = self.blocks[:, :, position // self.query_block]  # B H K M
            read = read | by_query[..., position // self.key_block]
        return read & (age >= 0)


class Pattern(Protocol):
    """Decides which keys the queries of a context read while it is prefilled.

    A frozen dataclass without state. Equal patterns share a prefill, so a pattern is hashable.
    """

    def __hash__(self) -> int:
        """Return the same hash for equal patterns."""

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return what the queries of one layer read, without computing the attention itself."""
