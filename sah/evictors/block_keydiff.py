"""KeyDiff, block by block."""

# B batch, G key-value heads, K keys, N kept keys, L keys of a block, D head dimension

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.keydiff import KeyDiff, distinctness
from sah.evictors.scoring import keep_best


@dataclass(frozen=True, kw_only=True)
class BlockKeyDiff(KeyDiff):
    """Apply KeyDiff whenever a block of the context has been read (arXiv:2504.15364).

    The cache never holds more than the budget and one block: what a block finds is what the
    earlier ones left. As in kvpress (BlockPress), the prefill itself is dense and only the choice
    of keys goes block by block; in the paper, later blocks attend to what was kept.
    """

    block: int = 128
    """Keys of a block; 128 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block < 1:
            raise ValueError(f"BlockKeyDiff: block must be at least 1, got {self.block}")

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        budget, positions = self.budget(layer), torch.arange(layer.length, device=layer.key.device)
        kept: Int[Tensor, "B G N"] = positions[:budget].expand(*layer.key.shape[:2], -1)
        for block in positions[budget:].split(self.block):
            found = torch.cat([kept, block.expand(*kept.shape[:2], -1)], dim=-1)  # B G N+L
            index = found.unsqueeze(-1).expand(-1, -1, -1, layer.key.shape[-1])
            stays = keep_best(distinctness(layer.key.gather(2, index)), budget)
            kept = found[stays].view_as(kept)
        alive = torch.zeros(layer.key.shape[:3], dtype=torch.bool, device=layer.key.device)
        return alive.scatter(2, kept, True)
