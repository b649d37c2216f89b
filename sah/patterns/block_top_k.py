"""Blocks of keys whose mean is nearest to the mean query of a block."""

# B batch, H query heads, G key-value heads, N blocks of queries, M blocks of keys

from dataclasses import dataclass

import torch

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.selection import select_top
from sah.patterns.budgets import budget_of, require_count_or_share, require_whole
from sah.patterns.estimates import block_distances, block_means, products


@dataclass(frozen=True, kw_only=True)
class BlockTopK:
    """Let each block of queries read the key blocks with the best product of mean query and key.

    MInference's block-sparse head (arXiv:2407.02490, algorithm 3; `_build_block_index` in
    minference/ops/block_sparse_flash_attention.py). As there, the block's own keys compete with the
    others. Unlike there, a query always reads its own key, the last block's means are over its own
    tokens instead of zeros too, and all heads have this pattern.
    """

    blocks: int | None = None
    """Blocks to read per block of queries; set exactly one of blocks and fraction."""
    fraction: float | None = None
    """Share of the blocks up to its own that a block of queries reads, in (0, 1]; rounded up."""
    block: int = 64
    """Queries, and keys, per block; 64 as the authors' code."""

    def __post_init__(self) -> None:
        require_count_or_share("BlockTopK", blocks=self.blocks, fraction=self.fraction)
        require_whole("BlockTopK", "block", self.block, 1)

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return the best blocks of each block of queries."""
        scores = products(block_means(layer.query, self.block), block_means(layer.key, self.block))
        count = scores.shape[2]
        visible = block_distances(count, scores.device) >= 0  # N M
        budgets = [budget_of(number + 1, self.blocks, self.fraction) for number in range(count)]
        budget = torch.tensor(budgets, device=scores.device)[:, None]  # N 1
        selected = select_top(
            scores, visible.expand_as(scores), budget.expand(1, 1, -1, 1), budgets[-1]
        )
        return Reads(blocks=selected, query_block=self.block, key_block=self.block)
