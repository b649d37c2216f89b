"""Sinks, a sliding window, and all keys for the last queries, while the context is prefilled."""

from dataclasses import dataclass, replace

from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.patterns.a_shape import AShape


@dataclass(frozen=True, kw_only=True)
class TriShape(AShape):
    """Read as `AShape` does, and let the last queries of the context read every key.

    The Tri-shape of MInference (SCBench, arXiv:2412.10319). In the authors' code the last queries
    are those of the prompt, with its question; here the question comes after the context and reads
    as the maskers say.
    """

    last_queries: int = 100
    """Queries at the end of the context that read every key; 100 as in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last_queries < 0:
            raise ValueError(f"TriShape: last_queries must be at least 0, got {self.last_queries}")

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return sinks, window and the last queries, the same for all heads."""
        return replace(super().reads(layer), last_queries=self.last_queries)
