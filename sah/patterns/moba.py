"""Blocks of keys whose mean is nearest to each query."""

# B batch, H query heads, G key-value heads, Q queries of a chunk, D dimension, M blocks of keys

from dataclasses import dataclass

import torch

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.selection import select_top
from sah.patterns.budgets import require_whole
from sah.patterns.estimates import block_means, products

_CHUNK = 4096
"""Queries whose scores are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class MoBA:
    """Let each query read its own block and those with the best q · mean key (arXiv:2502.13189).

    As in moba/moba_naive.py of github.com/MoonshotAI/MoBA. The authors train models with it and
    warn that others lose quality. They also leave some layers dense: set `dense_layers`.
    """

    block: int = 512
    """Keys per block; 512 as in the paper's models with a context of 8,192 tokens."""
    top_k: int = 3
    """Blocks that each query reads, its own included; 3 as in the same models."""

    def __post_init__(self) -> None:
        require_whole("MoBA", "block", self.block, 1)
        require_whole("MoBA", "top_k", self.top_k, 1)

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return the blocks of each query."""
        means = block_means(layer.key, self.block)  # B G M D
        number = torch.arange(means.shape[2], device=means.device)
        budget = torch.full((1, 1, 1, 1), self.top_k, device=means.device)
        chunks = []
        for start in range(0, layer.length, _CHUNK):
            query = layer.query[:, :, start : start + _CHUNK]
            position = torch.arange(start, start + query.shape[2], device=means.device)
            own = (position // self.block)[:, None]  # Q 1
            scores = products(query, means).masked_fill(number == own, torch.inf)  # B H Q M
            candidates = (number <= own).expand_as(scores)
            chunks.append(select_top(scores, candidates, budget, min(self.top_k, len(number))))
        return Reads(blocks=torch.cat(chunks, dim=2), query_block=1, key_block=self.block)
