"""The protocol of evictors."""

# B batch, G key-value heads, K keys

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.attention.eviction.witness import Witness


class Evictor(Protocol):
    """Chooses which keys of a context stay in the cache, layer by layer and for each head.

    Keys keep their positions. Every later query reads what stays, and everything after the
    context, unless the evictor is a `DecodingEvictor`.
    """

    @property
    def witness(self) -> Witness:
        """What it needs of the prefill, besides keys and values."""

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay, at least one in each head."""


@runtime_checkable
class CrossLayerEvictor(Evictor, Protocol):
    """An evictor that compares keys of different layers."""

    def at_contexts(self, layers: Sequence[ContextLayer]) -> Sequence[Bool[Tensor, "B G K"]]:
        """Return which keys stay in each of the layers that evict, at least one in each head."""


@runtime_checkable
class DecodingEvictor(Evictor, Protocol):
    """An evictor that also drops keys after the context, whenever a query has been read.

    Queries come one at a time, in order. All state is in what the methods return, so that it is
    rewound with the answer.

    `batched: ClassVar = True` says that `after_query` also works on several sequences of different
    lengths at once (`step.inputs.rows`). It then uses `contexts`, `after_contexts`, `last`, `best`
    and `sequence` of the step, but not `context`, `after_context` or `positions`, which are of a
    single sequence, and reads no number of the device. Each tensor of its memory has the batch in
    front; where dimension 2 differs between sequences, it begins padded with zeros at its end. R
    is less than before when the longest sequence has left. Without `batched`, the rows of a batch
    are computed one by one. A subclass does not inherit it.
    """

    def begin(self, layer: ContextLayer, kept: KeptKeys) -> tuple[Tensor, ...]:
        """Return the memory that the first query after the context finds.

        Without a context this is not called, and the memory is empty.
        """

    def after_query(self, held: HeldKeys, step: QueryStep) -> HeldKeys:
        """Return which keys stay once a query has been read, and the new memory.

        Args:
            held: before the query; the query's own key is the last one, and stays so far.
            step: the query, and what it could read.
        """
