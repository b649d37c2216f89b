"""Keys quantised per channel, values per token, and recent tokens exact."""

from dataclasses import dataclass

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten
from sah.attention.eviction.witness import Witness
from sah.rewriters.packing import quantised, require_packing


@dataclass(frozen=True, kw_only=True)
class KIVI:
    """Quantise keys per channel and values per token, but not the last tokens (KIVI).

    arXiv:2402.02750, section 3: asymmetric rounding between minimum and maximum of a group, which
    is `group` tokens of one channel for keys, and `group` channels of one token for values.

    Unlike the paper, only the context is quantised: tokens of the question and the answer stay
    exact when `residual` newer ones follow. The last `residual` keys of the context are exact, and
    the last group may be shorter; the paper quantises keys in whole blocks of `residual` tokens.
    """

    bits: int = 2
    """Bits of each code: 2 or 4 in the paper; 8 and 16 as controls."""
    group: int = 32
    """Tokens of a group of keys, and channels of a group of values; 32 as in the paper."""
    residual: int = 128
    """Tokens at the end of the context that stay exact; 128 as in the paper."""

    def __post_init__(self) -> None:
        require_packing("KIVI", self.bits, self.group)
        if self.residual < 0:
            raise ValueError(f"KIVI: residual must be at least 0, got {self.residual}")

    @property
    def witness(self) -> Witness:
        """Nothing."""
        return Witness()

    def at_context(self, layer: ContextLayer, kept: KeptKeys) -> Rewritten:
        """Return the kept rows after quantisation."""
        old = kept.position < layer.length - self.residual
        return quantised(kept, old, bits=self.bits, group=self.group, along="tokens")
