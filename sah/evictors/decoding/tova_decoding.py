"""TOVA while decoding: after every query, the key with the least attention goes."""

# B batch, H query heads, G key-value heads, R rows

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.evictors.tova import TOVA


@dataclass(frozen=True, kw_only=True)
class TOVADecoding(TOVA):
    """Drop the key that the current query attends to least (TOVA, arXiv:2401.06104).

    The attention is averaged over all heads of the layer, which hold the same keys. Like every
    other key, the query's own may go. The context is ranked once, at its end, as in `TOVA`; in the
    paper, its keys go one by one, and later ones attend to what was left.
    """

    batched: ClassVar = True

    def begin(self, layer: ContextLayer, kept: KeptKeys) -> tuple[Tensor, ...]:
        """Remember nothing."""
        return ()

    def after_query(self, held: HeldKeys, step: QueryStep) -> HeldKeys:
        """Drop the key with the least weight of this query, above the budget."""
        votes = step.weights.mean(1, keepdim=True)  # B 1 R
        budgets = [self.capacity(context) for context in step.contexts]
        return HeldKeys(alive=step.best(held, votes, budgets))
