"""Scorers of summaries and long answers: ROUGE, BLEU, METEOR.

ZeroSCROLLS and InfiniteBench use the package `rouge-score`, and LooGLE's BLEU and METEOR `nltk`, as
here. The ROUGE of LongBench and LooGLE, over sets of words, equals that of the package `rouge`,
whose recursion fails on sentences of about a thousand words.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from sah.benchmarks.scorers.text import segment_chinese

# Porter's algorithm is quadratic in a word, and recursive. The longest English word has 45 letters.
_LONGEST_STEMMED = 50


def rouge_l(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-L F1 over the references, by rouge (LongBench)."""
    return max(_rouge_l(prediction, reference).f1 for reference in references)


def rouge_l_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the ROUGE-L of words segmented by jieba (LongBench)."""
    return rouge_l(
        " ".join(segment_chinese(prediction)),
        [" ".join(segment_chinese(reference)) for reference in references],
    )


def rouge_1_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-1 recall over the references, by rouge (LooGLE)."""
    return max(_rouge_n(prediction, reference, 1).recall for reference in references)


def rouge_2_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-2 recall over the references, by rouge (LooGLE)."""
    return max(_rouge_n(prediction, reference, 2).recall for reference in references)


def rouge_l_recall(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best ROUGE-L recall over the references, by rouge (LooGLE)."""
    return max(_rouge_l(prediction, reference).recall for reference in references)


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
    and words keep their order and number. Theirs compares sets, whose order, and with it the
    score, changes with each start of Python.
    """
    from nltk.translate.meteor_score import single_meteor_score

    words = prediction.split()
    if not words:
        return 0.0
    return max(
        float(
            single_meteor_score(reference.split(), words, stemmer=_stemmer(), wordnet=_NoSynonyms())
        )
        for reference in references
    )


@dataclass(frozen=True, kw_only=True)
class _Overlap:
    """How many different words, or pairs of words, two texts have and share."""

    shared: int
    given: int
    right: int

    @property
    def recall(self) -> float:
        return self.shared / self.right if self.right else 0.0

    @property
    def f1(self) -> float:
        precision = self.shared / self.given if self.given else 0.0
        # As in the package: the score of a perfect answer is slightly below 1.
        return 2 * precision * self.recall / (precision + self.recall + 1e-8)


class _NoSynonyms:
    """A WordNet without entries."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def _rouge_n(prediction: str, reference: str, n: int) -> _Overlap:
    given, right = (
        {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}
        for words in (list(chain(*_sentences(text))) for text in (prediction, reference))
    )
    return _Overlap(shared=len(given & right), given=len(given), right=len(right))


def _rouge_l(prediction: str, reference: str) -> _Overlap:
    """Count the words in any longest common subsequence of a sentence of each text."""
    given, right = _sentences(prediction), _sentences(reference)
    shared = {word for one in right for other in given for word in _common(one, other)}
    return _Overlap(
        shared=len(shared), given=len(set(chain(*given))), right=len(set(chain(*right)))
    )


def _sentences(text: str) -> list[list[str]]:
    """Split at full stops and white space; nothing if a text has no word."""
    sentences = [sentence.split() or [""] for sentence in text.split(".") if sentence]
    return sentences if any(any(words) for words in sentences) else []


def _common(one: Sequence[str], other: Sequence[str]) -> set[str]:
    """Return the words of a longest common subsequence, the one that the package chooses."""
    known = set(one)
    other = [word for word in other if word in known]
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above, row = lengths[-1], [0]
        for place, mate in enumerate(other):
            row.append(above[place] + 1 if word == mate else max(above[place + 1], row[place]))
        lengths.append(row)
    words, i, j = set(), len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            words.add(one[i])
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


class _Stemmer:
    """Porter's stemmer, which leaves very long words as they are."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._porter = PorterStemmer()

    def stem(self, word: str) -> str:
        return word if len(word) > _LONGEST_STEMMED else str(self._porter.stem(word))


class _StemmedWords:
    """The tokenizer of rouge-score, with this stemmer."""

    def tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return list(tokenize(text, _stemmer()))


@cache
def _stemmer() -> _Stemmer:
    return _Stemmer()


@cache
def _rouge_scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(kinds), tokenizer=None if "rougeLsum" in kinds else _StemmedWords())


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
