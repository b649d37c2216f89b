"""The protocol of rewriters."""

# B batch, G key-value heads, N kept keys, D/V dimensions

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.witness import Witness


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """Keys and values of one layer's kept rows, as a lossy cache returns them."""

    key: Float[Tensor, "B G N D"]
    value: Float[Tensor, "B G N V"]
    packed_bytes: int
    """Size of both in packed storage, with scales and indexes and without the rows that pad a
    head; the tensors here are unpacked."""


class Rewriter(Protocol):
    """Changes the keys and values that stay of a context, layer by layer.

    Every later query reads the rewritten rows. Tokens after the context are cached exactly.
    """

    @property
    def witness(self) -> Witness:
        """What it needs of the prefill, besides keys and values."""

    def at_context(self, layer: ContextLayer, kept: KeptKeys) -> Rewritten:
        """Return the rewritten rows of the kept keys; the layer's own tensors stay unchanged."""
