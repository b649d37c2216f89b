"""Scorers that compare words: F1, exact match, containment."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

# What LongBench and InfiniteBench remove from Chinese answers besides ASCII punctuation.
_CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏."
)
_DROP_ASCII = str.maketrans("", "", string.punctuation)
_DROP_CHINESE = str.maketrans("", "", string.punctuation + _CHINESE_PUNCTUATION)


def normalise(text: str) -> str:
    """Normalise as SQuAD does: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROP_ASCII)).split())


def normalise_chinese(text: str) -> str:
    """Normalise Chinese as LongBench does: lower case, no punctuation, no white space."""
    return "".join(text.lower().translate(_DROP_CHINESE).split())


def exact_match(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the prediction is a reference, ignoring case and outer white space."""
    answer = prediction.strip().casefold()
    return float(any(answer == reference.strip().casefold() for reference in references))


def normalised_exact_match(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the prediction is a reference under SQuAD's normalisation."""
    answer = normalise(prediction)
    return float(any(answer == normalise(reference) for reference in references))


def contained_share(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of references that the prediction contains, ignoring case (RULER)."""
    _require(references)
    answer = prediction.lower()
    return sum(reference.lower() in answer for reference in references) / len(references)


def contained_any(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the prediction contains a reference, ignoring case (RULER's qa)."""
    _require(references)
    answer = prediction.lower()
    return float(any(reference.lower() in answer for reference in references))


def token_f1(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of words under SQuAD's normalisation."""
    words = normalise(prediction).split()
    return max(_f1(words, normalise(reference).split()) for reference in _require(references))


def token_f1_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of words segmented by jieba (LongBench)."""
    words = _chinese_words(prediction)
    return max(_f1(words, _chinese_words(reference)) for reference in _require(references))


def character_f1_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of single characters (InfiniteBench)."""
    characters = normalise_chinese(prediction)
    return max(_f1(characters, normalise_chinese(reference)) for reference in _require(references))


def segment_chinese(text: str) -> list[str]:
    """Segment a text into words with jieba."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    return list(jieba.cut(text, cut_all=False))


def _chinese_words(text: str) -> list[str]:
    return [word for word in map(normalise_chinese, segment_chinese(text)) if word]


def _f1(prediction: Iterable[str], reference: Iterable[str]) -> float:
    predicted, expected = Counter(prediction), Counter(reference)
    common = (predicted & expected).total()
    if common == 0:
        return 0.0
    return 2 * common / (predicted.total() + expected.total())


def _require(references: Sequence[str]) -> Sequence[str]:
    if not references:
        raise ValueError("an example without references cannot be scored")
    return references
