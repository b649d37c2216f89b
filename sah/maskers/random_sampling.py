"""Random keys: the baseline that every selector must beat."""

from dataclasses import dataclass
from typing import ClassVar

from sah.attention import AttentionInputs, AttentionMask, Budget, select_top


@dataclass(frozen=True, kw_only=True)
class RandomSampling(Budget):
    """Add candidates drawn uniformly without replacement, weighted to stay unbiased.

    With n candidates and b draws, each candidate is included with probability b/n and weighs n/b,
    so that numerator and denominator of the attention are unbiased.
    """

    batched: ClassVar[bool] = True

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        budget, bound = self.per_query(inputs)
        candidates = mask.candidates
        drawn = select_top(inputs.uniform(), candidates, budget, bound)
        available = candidates.sum(-1, keepdim=True)
        weight = available / budget.minimum(available).clamp(min=1)
        return mask.add(drawn, weight, at_most=bound)
