"""The best keys, known by looking at all of them."""

from dataclasses import dataclass

from sah.attention import AttentionInputs, AttentionMask, Budget, select_top


@dataclass(frozen=True, kw_only=True)
class OracleTopK(Budget):
    """Add each query's highest-scoring candidates, by exact attention score.

    The upper bound for approximate selectors such as Quest (arXiv:2406.10774) at the same
    number of keys. Keys an earlier masker selected do not count towards the budget.
    """

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        budget, bound = self.keys(inputs)
        return mask.add(select_top(inputs.scores, mask.candidates, budget, bound))
