"""Blocks scored by the antidiagonals of their strided squares."""

# B batch, H query heads, G key-value heads, K keys, D dimension, R groups of `stride` tokens
# Q groups of a chunk, N blocks of queries, M blocks of keys

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.selection import require_fraction
from sah.patterns.budgets import require_whole
from sah.patterns.estimates import block_distances, fewest_reaching, logits

_CHUNK = 16
"""Blocks of queries whose scores are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class XAttention:
    """Read the fewest blocks that reach a share of the attention that antidiagonals estimate.

    XAttention (arXiv:2503.16428; `xattn_estimate` and `find_blocks_chunked` in xattn/src of
    github.com/mit-han-lab/x-attention): the products on the antidiagonal of each square of
    stride · stride tokens are averaged, a softmax over a row of squares estimates attention, and
    its sum over a block is the block's mass. The first block and the queries' own are always read
    and count towards the threshold.

    That is the authors' rule from their second chunk of queries on. In the first one, which is the
    whole context up to 16,384 tokens, their code reads one block more: it selects the first block
    without counting its mass. All heads have one threshold, where the authors' runs on Llama have
    one each. Averages are soft-capped in models that cap scores.
    """

    threshold: float = 0.9
    """Share of the estimated attention to reach, in (0, 1]; 0.9 as in the paper. 1 reads all."""
    stride: int = 16
    """Tokens on each side of a square; 16 as in the authors' code (the paper: 8 and 16)."""
    block: int = 128
    """Queries, and keys, per block; 128 as in the authors' code. A multiple of stride."""

    def __post_init__(self) -> None:
        require_fraction("XAttention", "threshold", self.threshold)
        require_whole("XAttention", "stride", self.stride, 1)
        require_whole("XAttention", "block", self.block, 1)
        if self.block % self.stride:
            raise ValueError(
                f"XAttention: block={self.block} is not a multiple of stride={self.stride}; "
                f"set block to one, such as {self.stride * max(1, self.block // self.stride)}"
            )

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return the smallest set of blocks of each block of queries that reaches the threshold."""
        mass = self.masses(layer)  # B H N M
        distance = block_distances(mass.shape[2], mass.device)
        always = distance == 0
        always[:, 0] = True
        selected = fewest_reaching(mass, self.threshold, always) & (distance >= 0)
        return Reads(blocks=selected, query_block=self.block, key_block=self.block)

    def masses(self, layer: PrefillLayer) -> Float[Tensor, "B H N M"]:
        """Return the estimated attention of each block; a row of squares sums to 1."""
        fill = (0, 0, 0, -layer.length % self.block)
        query, key = (
            pad(vectors.float(), fill).unflatten(2, (-1, self.stride))
            for vectors in (layer.query, layer.key)
        )
        query = query.flip(3).flatten(3) / self.stride  # B H R stride·D; the mean of the products
        key = key.flatten(3)  # B G R stride·D
        blocks, of_block = key.shape[2] * self.stride // self.block, self.block // self.stride
        real = -(-layer.length // self.stride)  # groups with a token
        chunks = []
        for start in range(0, real, _CHUNK * of_block):
            rows = query[:, :, start : start + _CHUNK * of_block]
            end = start + rows.shape[2]
            scores = logits(layer, rows, key[:, :, :end])  # B H Q R
            number = torch.arange(end, device=scores.device)
            later = number > number[start:, None]
            weights = scores.masked_fill_(later, -torch.inf).softmax(-1)
            weights[:, :, max(0, real - start) :] = 0
            by_block = weights.unflatten(3, (-1, of_block)).sum(4)
            by_block = by_block.unflatten(2, (-1, of_block)).sum(3)
            chunks.append(pad(by_block, (0, blocks - by_block.shape[3])))
        return torch.cat(chunks, dim=2)
