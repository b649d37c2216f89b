"""Keys that the model needs to repeat the context."""

# B batch, G key-value heads, K keys

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.reconstruction import Reconstruction
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import ScoringEvictor, keep_best

Across = Literal["head", "layer", "model"]


@dataclass(frozen=True, kw_only=True)
class KVzip(ScoringEvictor):
    """Keep the keys that the model attends to when it repeats the context (arXiv:2505.23416).

    After the prefill the model reads, chunk by chunk, a request to repeat the context and then the
    chunk itself. A key's score is its largest attention weight over these tokens and the query
    heads of its group, in a softmax over the first keys, the chunk and what has been read of the
    request and its answer. The layers that evict share one budget, as in the authors' code
    (`pair`; `head` is their `pair-uniform`) and kvpress (`layer` is its `layerwise`).

    As in the authors' code, the part of the chat template before the context is not repeated, and
    stays; here it counts towards the budget. kvpress keeps its first `sinks` keys only.
    """

    across: Across = "model"
    """What shares a budget: each head has its own, or the heads of a layer or of all layers
    compete, and `tokens` or `fraction` is the mean of the heads."""
    chunk: int = 2048
    """Tokens that are repeated at a time; 2,048 as in kvpress (the authors: 2,000)."""
    sinks: int = 4
    """Keys at the beginning that stay; 4 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.across not in get_args(Across):
            known = ", ".join(get_args(Across))
            raise ValueError(f"KVzip: across must be one of {known}, got {self.across!r}")
        if self.chunk < 1:
            raise ValueError(f"KVzip: chunk must be at least 1, got {self.chunk}")
        # Otherwise a head might keep no key.
        if self.sinks < 1:
            raise ValueError(f"KVzip: sinks must be at least 1, got {self.sinks}")

    @property
    def _asked(self) -> Reconstruction:
        return Reconstruction(chunk=self.chunk, sinks=self.sinks)

    @property
    def witness(self) -> Witness:
        """A pass in which the model repeats the context."""
        return Witness(reconstructions=frozenset({self._asked}))

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the largest weights; more than any of them for the first keys, falling."""
        weights, leading = layer.reconstructed(self._asked)
        first = weights.new_tensor(range(leading, 0, -1)) / max(1, leading)
        return torch.cat([(1 + first).expand(*weights.shape[:2], -1), weights[..., leading:]], -1)

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay of a layer with a budget of its own."""
        return super().at_context(layer) if self.across == "head" else self._best([layer])[0]

    def at_contexts(self, layers: Sequence[ContextLayer]) -> list[Bool[Tensor, "B G K"]]:
        """Return which keys stay in each layer."""
        if self.across == "model" and layers:
            return self._best(layers)
        return [self.at_context(layer) for layer in layers]

    def _best(self, layers: Sequence[ContextLayer]) -> list[Bool[Tensor, "B G K"]]:
        """Let the heads of some layers compete; all of them keep their first key."""
        device = layers[0].key.device  # they may be on several
        scores = [self.scores(layer).to(device) for layer in layers]
        together = torch.cat([one.flatten(1) for one in scores], dim=1)  # B LGK
        budget = sum(self.budget(layer) * layer.groups for layer in layers)
        parts = (
            keep_best(together.unsqueeze(1), budget)
            .squeeze(1)
            .split([one[0].numel() for one in scores], dim=1)
        )
        return [
            part.view_as(one).to(layer.key.device)
            for part, one, layer in zip(parts, scores, layers, strict=True)
        ]
