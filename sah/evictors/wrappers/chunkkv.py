"""Whole chunks of neighbouring keys."""

# B batch, G key-value heads, K keys, C chunks

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.wrappers.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class ChunkKV(Wrapper):
    """Keep whole chunks, the same ones in every head (ChunkKV, arXiv:2502.00299).

    Chunks are ranked by the mean of their keys' scores over all heads. Those that fit into the
    budget together stay, at least one, so that up to a chunk of the budget is left over. kvpress
    keeps the budget's share of the number of chunks instead, and exceeds the budget where the
    last chunk is shorter; the two agree if the chunks are equally long.
    """

    chunk: int = 20
    """Keys of a chunk; 20 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 1:
            raise ValueError(f"ChunkKV: chunk must be at least 1, got {self.chunk}")
        tokens = getattr(self.of, "tokens", None)
        if tokens is not None and tokens < self.chunk:
            raise ValueError(
                f"ChunkKV: a chunk of {self.chunk} keys is more than the budget of.tokens={tokens};"
                " lower chunk or raise of.tokens"
            )

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        scores = self.scores(layer).float().mean(1)  # B K
        missing = -layer.length % self.chunk
        size = pad(torch.ones_like(scores), (0, missing)).unflatten(1, (-1, self.chunk)).sum(-1)
        total = pad(scores, (0, missing)).unflatten(1, (-1, self.chunk)).sum(-1)  # B C
        order = (total / size).argsort(stable=True, descending=True)
        fits = size.gather(1, order).cumsum(-1) <= self.budget(layer)
        fits[:, 0] = True
        stays = torch.zeros_like(fits).scatter(1, order, fits)
        per_key = stays.repeat_interleave(self.chunk, dim=1)[:, : layer.length]
        return per_key.unsqueeze(1).repeat(1, layer.groups, 1)
