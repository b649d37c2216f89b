"""Base class of evictors that build on the scores and the budget of another one."""

# B batch, G key-value heads, K keys

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import DecodingEvictor
from sah.attention.eviction.witness import Witness
from sah.evictors.scoring import RankingEvictor


@dataclass(frozen=True, kw_only=True)
class Wrapper(RankingEvictor):
    """Ranks keys with another evictor, whose budget (`of.tokens` or `of.fraction`) it spends."""

    of: RankingEvictor
    """The evictor that scores the keys."""

    def __post_init__(self) -> None:
        if not isinstance(self.of, RankingEvictor):
            name = type(self.of).__name__
            raise ValueError(
                f"{type(self).__name__}: `of` must be an evictor that scores keys, and {name} does "
                "not; choose another one with evictor@sparse_attention.evict.NAME.of=OPTION"
            )
        if isinstance(self.of, DecodingEvictor):
            raise ValueError(
                f"{type(self).__name__}: `of` is {type(self.of).__name__}, which evicts while "
                f"decoding, too, and {type(self).__name__} does not; choose an evictor of the "
                "context alone with evictor@sparse_attention.evict.NAME.of=OPTION"
            )

        across = getattr(self.of, "across", "head")
        if across != "head":
            raise ValueError(
                f"{type(self).__name__}: `of` is {type(self.of).__name__} with across={across}, "
                f"but {type(self).__name__} spends the budget itself, layer by layer; set "
                "sparse_attention.evict.NAME.of.across=head"
            )

    @property
    def witness(self) -> Witness:
        """What the inner evictor needs."""
        return self.of.witness

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the inner evictor's scores."""
        return self.of.scores(layer)

    def budget(self, layer: ContextLayer) -> int:
        """Return the inner evictor's budget for each head of the layer."""
        return self.of.budget(layer)
