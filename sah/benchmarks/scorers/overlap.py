"""Scorers of summaries and long answers: ROUGE, BLEU, METEOR.

They use the same packages as the official scripts, so that scores are comparable: `rouge` for
LongBench and LooGLE, `rouge-score` for ZeroSCROLLS and InfiniteBench, and `nltk`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sah.benchmarks.scorers.text import segment_chinese


def rouge_l(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-L F1 over the references, by rouge (LongBench)."""
    return max(_rouge(prediction, reference)["rouge-l"]["f"] for reference in references)


def rouge_l_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the ROUGE-L of words segmented by jieba (LongBench)."""
    return rouge_l(
        " ".join(segment_chinese(prediction)),
        [" ".join(segment_chinese(reference)) for reference in references],
    )


def rouge_1_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-1 recall over the references, by rouge (LooGLE)."""
    return max(_rouge(prediction, reference)["rouge-1"]["r"] for reference in references)


def rouge_2_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-2 recall over the references, by rouge (LooGLE)."""
    return max(_rouge(prediction, reference)["rouge-2"]["r"] for reference in references)


def rouge_l_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-L recall over the references, by rouge (LooGLE)."""
    return max(_rouge(prediction, reference)["rouge-l"]["r"] for reference in references)


def rouge_l_sum(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-Lsum F1 over the references, by rouge-score (InfiniteBench)."""
    (score,) = _rouge_score(prediction, references, ("rougeLsum",))
    return score


def rouge_geometric_mean(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the geometric mean of stemmed ROUGE-1, -2, -L F1, by rouge-score (ZeroSCROLLS)."""
    return math.prod(_rouge_score(prediction, references, ("rouge1", "rouge2", "rougeL"))) ** (
        1 / 3
    )


def bleu_1(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the BLEU of single words, by nltk (LooGLE)."""
    return _bleu(prediction, references, (1, 0, 0, 0))


def bleu_4(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the BLEU of 4-grams alone, by nltk (LooGLE)."""
    return _bleu(prediction, references, (0, 0, 0, 1))


def meteor(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best METEOR over the references, by nltk (LooGLE).

    Unlike in LooGLE's script, synonyms do not match, since WordNet would have to be downloaded,
    and words keep their order and number, while theirs compares unordered sets.
    """
    from nltk.translate.meteor_score import single_meteor_score

    words = prediction.split()
    if not words:
        return 0.0
    return max(
        float(single_meteor_score(reference.split(), words, wordnet=_NoSynonyms()))
        for reference in references
    )


class _NoSynonyms:
    """A WordNet without entries."""

    def synsets(self, _word: str) -> list[Any]:
        return []


_ZERO = {name: {"r": 0.0, "p": 0.0, "f": 0.0} for name in ("rouge-1", "rouge-2", "rouge-l")}


def _rouge(prediction: str, reference: str) -> dict[str, dict[str, float]]:
    # The package splits at full stops and raises if nothing is left.
    if not prediction.replace(".", "").strip() or not reference.replace(".", "").strip():
        return _ZERO
    from rouge import Rouge

    try:
        scores: dict[str, dict[str, float]] = Rouge().get_scores([prediction], [reference])[0]
    except RecursionError:
        # A sentence of about a thousand words; the official scripts score exceptions as 0.
        return _ZERO
    return scores


@cache
def _rouge_scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(kinds), use_stemmer=kinds != ("rougeLsum",))


def _rouge_score(prediction: str, references: Iterable[str], kinds: tuple[str, ...]) -> list[float]:
    scorer = _rouge_scorer(kinds)
    scores = [scorer.score(reference, prediction) for reference in references]
    return [max(float(score[kind].fmeasure) for score in scores) for kind in kinds]


def _bleu(prediction: str, references: Sequence[str], weights: tuple[int, ...]) -> float:
    import warnings

    from nltk.translate.bleu_score import sentence_bleu

    words = prediction.split()
    if not words:
        return 0.0
    with warnings.catch_warnings():
        # Without a common 4-gram the score is 0, which needs no warning.
        warnings.simplefilter("ignore", UserWarning)
        return float(sentence_bleu([item.split() for item in references], words, weights=weights))
