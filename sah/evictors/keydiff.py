"""Keys that differ most from the mean direction of all keys."""

# B batch, G key-value heads, K keys, D head dimension

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.scoring import ScoringEvictor


@dataclass(frozen=True, kw_only=True)
class KeyDiff(ScoringEvictor):
    """Keep the keys whose direction differs most from the mean direction (arXiv:2504.15364).

    The paper evicts block by block while the context is read; that is BlockKeyDiff.
    """

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the negated cosine similarity to the mean of the normalised keys."""
        return distinctness(layer.key)


def distinctness(key: Float[Tensor, "B G K D"]) -> Float[Tensor, "B G K"]:
    """Return each key's negated cosine similarity to the mean direction of them all."""
    key = key.float()
    anchor = normalize(key, dim=-1).mean(2, keepdim=True)  # B G 1 D
    return -cosine_similarity(key, anchor, dim=-1)
