"""The best keys by exact attention score."""

# B batch, H query heads, Q queries, K keys

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, TopKMasker


@dataclass(frozen=True, kw_only=True)
class OracleTopK(TopKMasker):
    """Add each query's highest-scoring candidates, by exact attention score.

    The upper bound for approximate selectors such as Quest (arXiv:2406.10774) at the same
    number of keys. Keys an earlier masker selected do not count towards the budget.
    """

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        return inputs.scores
