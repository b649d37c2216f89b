"""The best keys by exact attention score."""

# B batch, H query heads, Q queries, K keys

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, TopKMasker


@dataclass(frozen=True, kw_only=True)
class OracleTopK(TopKMasker):
    """Add each query's candidates with the highest exact attention scores.

    An upper bound on the recall of approximate selectors such as Quest (arXiv:2406.10774) at the
    same number of keys.
    """

    batched: ClassVar[bool] = True

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        return inputs.scores

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "B H Q K"]
    ) -> Float[Tensor, "B H Q K"]:
        return scores
