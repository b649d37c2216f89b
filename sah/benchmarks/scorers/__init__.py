"""Scorers of single answers: pure functions `scorer(prediction, references, **extras) -> float`.

All scores are in [0, 1]. `benchmark.metric=` of the jsonl benchmark accepts any of these names.
"""

from sah.benchmarks.scorers.choices import bug_choice, first_choice, last_choice, stated_choice
from sah.benchmarks.scorers.classification import (
    classification,
    code_similarity,
    count,
    paragraph_retrieval,
)
from sah.benchmarks.scorers.numbers import (
    competition_integer,
    exponential_similarity,
    first_integer,
    first_number,
    key_value,
    last_integer,
    leading_integers,
)
from sah.benchmarks.scorers.overlap import (
    bleu_1,
    bleu_4,
    meteor,
    rouge_1_recall,
    rouge_2_recall,
    rouge_geometric_mean,
    rouge_l,
    rouge_l_chinese,
    rouge_l_recall,
    rouge_l_sum,
)
from sah.benchmarks.scorers.structured import (
    cloze_exact,
    cloze_partial,
    concordance_index,
    list_coverage,
    list_exact,
    list_f1,
    list_subspan,
)
from sah.benchmarks.scorers.text import (
    character_f1_chinese,
    contained_any,
    contained_share,
    exact_match,
    normalised_exact_match,
    token_f1,
    token_f1_chinese,
)

__all__ = [
    "bleu_1",
    "bleu_4",
    "bug_choice",
    "character_f1_chinese",
    "classification",
    "cloze_exact",
    "cloze_partial",
    "code_similarity",
    "competition_integer",
    "concordance_index",
    "contained_any",
    "contained_share",
    "count",
    "exact_match",
    "exponential_similarity",
    "first_choice",
    "first_integer",
    "first_number",
    "key_value",
    "last_choice",
    "last_integer",
    "leading_integers",
    "list_coverage",
    "list_exact",
    "list_f1",
    "list_subspan",
    "meteor",
    "normalised_exact_match",
    "paragraph_retrieval",
    "rouge_1_recall",
    "rouge_2_recall",
    "rouge_geometric_mean",
    "rouge_l",
    "rouge_l_chinese",
    "rouge_l_recall",
    "rouge_l_sum",
    "stated_choice",
    "token_f1",
    "token_f1_chinese",
]
