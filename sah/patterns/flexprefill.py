"""Blocks of keys by share of attention, with a pattern chosen per head."""

# B batch, H query heads, G key-value heads, K keys, N blocks of queries, M blocks of keys

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.selection import require_fraction
from sah.patterns.budgets import require_share, require_whole
from sah.patterns.diagonals import diagonal_sums
from sah.patterns.estimates import (
    best,
    block_distances,
    block_means,
    block_sums,
    divergence,
    last_attention,
    logits,
)


@dataclass(frozen=True, kw_only=True)
class FlexPrefill:
    """Read the blocks that reach a share of attention, by one of two patterns per head.

    FlexPrefill (arXiv:2502.20766; `get_active_blocks` in flex_prefill/ops/flex_prefill_attention.py
    of github.com/bytedance/FlexPrefill). Columns and diagonals of blocks reach the share gamma of
    the attention of the last `block` queries. Where the means of queries and keys predict that
    attention well, a head reads the least budget of columns and diagonals instead, and the blocks
    with the highest predictions, ranked over all blocks of queries, up to gamma of their sum. The
    first column and the shortest diagonal are always read. Contexts of up to 2 · block or
    min_budget tokens are read whole.

    Deviations from the code: an attention of exactly 0 counts as 0 in the divergence, where
    theirs is NaN and the head gets columns and diagonals; tokens are converted to blocks by `block`
    instead of 128; gamma=1 reads all. It has no upper budget, which is unset there.
    """

    gamma: float = 0.9
    """Share of attention to reach, in (0, 1]; 0.9 or 0.95 by model in the authors' runs."""
    tau: float = 0.1
    """Root of the Jensen-Shannon divergence, in nats, below which an estimate is used; 0: never."""
    min_budget: int = 1024
    """Least tokens of columns, and of diagonals, per head; rounded up to blocks."""
    block: int = 128
    """Queries, and keys, per block; 128 as in the paper."""

    def __post_init__(self) -> None:
        require_fraction("FlexPrefill", "gamma", self.gamma)
        require_whole("FlexPrefill", "min_budget", self.min_budget, 1)
        require_whole("FlexPrefill", "block", self.block, 1)
        require_share("FlexPrefill", "tau", self.tau)

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return the blocks that each head reads."""
        least = -(-self.min_budget // self.block)
        if self.gamma == 1 or layer.length <= max(2, least) * self.block:
            return Reads(window=layer.length)
        weights = last_attention(layer, self.block)
        by_key, by_distance = weights.mean(2), diagonal_sums(weights) / self.block  # B H K
        vertical = block_sums(by_key, self.block)  # B H M
        # Cut from the longest distance on: the block of the shortest ones may be smaller.
        slash = block_sums(by_distance.flip(-1), self.block).flip(-1)
        query = layer.query[:, :, -self.block :].float().mean(2, keepdim=True)
        estimate = logits(layer, query, block_means(layer.key, self.block)).softmax(-1)
        aware = divergence(estimate.squeeze(2), vertical) < self.tau  # B H
        distance = block_distances(vertical.shape[2], vertical.device)
        columns = self._best(vertical, by_key, aware, least)
        diagonals = self._best(slash, by_distance, aware, least)
        selected = columns.unsqueeze(2) | diagonals[..., distance.clamp(min=0)]
        if aware.any():
            selected |= aware[..., None, None] & self.query_aware(layer)
        return Reads(
            blocks=selected & (distance >= 0), query_block=self.block, key_block=self.block
        )

    def query_aware(self, layer: PrefillLayer) -> Bool[Tensor, "B H N M"]:
        """Return the blocks with the highest estimates that have less than gamma of their sum."""
        pooled = (block_means(vectors, self.block) for vectors in (layer.query, layer.key))
        scores = logits(layer, *pooled)
        later = block_distances(scores.shape[2], scores.device) < 0
        share = scores.masked_fill(later, -torch.inf).softmax(-1)
        in_order, order = share.flatten(2).sort(descending=True, stable=True)
        kept = in_order.cumsum(-1) <= self.gamma * share.shape[2]
        selected = torch.zeros_like(kept).scatter_(-1, order, kept)
        return selected.view_as(share)

    def _best(
        self,
        of_block: Float[Tensor, "B H M"],
        of_token: Float[Tensor, "B H K"],
        aware: Bool[Tensor, "B H"],
        least: int,
    ) -> Bool[Tensor, "B H M"]:
        """Select blocks: as many as the best tokens that reach gamma fill, or the least."""
        reached = of_token.sort(descending=True).values.cumsum(-1)
        tokens = (reached <= self.gamma).sum(-1) + 1
        count = (tokens // self.block + 1).clamp(least, of_block.shape[-1])
        scores = of_block.clone()
        scores[..., 0] = torch.inf
        return best(scores, count.masked_fill(aware, least))
