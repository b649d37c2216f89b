"""Keys and values quantised per token."""

from dataclasses import dataclass

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten
from sah.attention.eviction.witness import Witness
from sah.rewriters.packing import quantised, require_packing


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Quantise keys and values per token, in groups of channels.

    Asymmetric rounding between minimum and maximum of a group. All keys of the context are
    quantised, as by the QuantizedCache of transformers; unlike there, later tokens stay exact
    however many follow.
    """

    bits: int = 4
    """Bits of each code: 2, 4, 8 or 16."""
    group: int = 64
    """Channels of a group, or all channels of a head if it has fewer."""

    def __post_init__(self) -> None:
        require_packing("Quantised", self.bits, self.group)

    @property
    def witness(self) -> Witness:
        """Nothing."""
        return Witness()

    def at_context(self, layer: ContextLayer, kept: KeptKeys) -> Rewritten:
        """Return the kept rows after quantisation."""
        every = kept.occupied
        return quantised(kept, every, bits=self.bits, group=self.group, along="channels")
