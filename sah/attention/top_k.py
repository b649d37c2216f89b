"""Base class of maskers that score every key and select the best within a budget."""

# B batch, H query heads, Q queries, K keys

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask
from sah.attention.selection import Budget, select_top


@dataclass(frozen=True, kw_only=True)
class TopKMasker(Budget, ABC):
    """Add each query's highest-scoring candidates, as many as the budget allows.

    A selector is a frozen dataclass with one method, `scores`. Of keys with equal scores at the
    end of the budget, the first in the sequence are added (`select_top`).
    """

    @abstractmethod
    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "#B H Q K"]:
        """Score all K keys, invisible ones too; only their order within a query matters."""

    def select(self, inputs: AttentionInputs, mask: AttentionMask) -> Bool[Tensor, "B H Q K"]:
        """Select the best candidates; override only with a faster way to the same keys."""
        budget, bound = self.per_query(inputs)
        return select_top(self.scores(inputs), mask.candidates, budget, bound)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        """Return the mask with each query's best candidates added, at weight 1."""
        return mask.add(self.select(inputs, mask))
