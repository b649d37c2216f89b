"""Scorers that compare words: F1, exact match, containment."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

# What LongBench and InfiniteBench remove from Chinese answers besides ASCII punctuation.
_CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏."
)
# jieba takes time quadratic in a run of unknown characters. Answers and references are shorter.
_SEGMENTED_AT_ONCE = 2048
# Letters and marks without a decomposition that Unidecode writes in ASCII.
_IN_ASCII = str.maketrans(
    {"æ": "ae", "œ": "oe", "ß": "ss", "þ": "th", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i"}
    | {"ħ": "h", "‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--"}
)
_DROP_ASCII = str.maketrans("", "", string.punctuation)
_DROP_CHINESE = str.maketrans("", "", string.punctuation + _CHINESE_PUNCTUATION)


def normalise(text: str) -> str:
    """Normalise as SQuAD does: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROP_ASCII)).split())


def normalise_chinese(text: str) -> str:
    """Normalise Chinese as LongBench does: lower case, no punctuation, no white space."""
    return "".join(text.lower().translate(_DROP_CHINESE).split())


def decompose(text: str) -> str:
    """Decompose accented letters (Unicode's NFD), in time linear in any text."""
    if text.isascii():
        return text
    characters = "".join(unicodedata.normalize("NFD", character) for character in text)
    # `unicodedata` sorts a run of combining marks by insertion.
    runs = groupby(characters, key=lambda character: unicodedata.combining(character) > 0)
    return "".join(
        "".join(sorted(run, key=unicodedata.combining) if is_mark else run) for is_mark, run in runs
    )


def _unaccented(text: str) -> str:
    """Decompose characters for compatibility, without accents, controls and invisible marks."""
    if text.isascii():
        return text
    decomposed = (
        part
        for character in text.translate(_IN_ASCII)
        for part in unicodedata.normalize("NFKD", character)
    )
    return "".join(
        part for part in decomposed if unicodedata.category(part) not in ("Mn", "Me", "Cc", "Cf")
    )


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
    _require_visible(references)
    answer = prediction.lower()
    return sum(reference.lower() in answer for reference in references) / len(references)


def contained_any(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the prediction contains a reference, ignoring case (RULER's qa)."""
    _require_visible(references)
    answer = prediction.lower()
    return float(any(reference.lower() in answer for reference in references))


def token_f1(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of words under SQuAD's normalisation."""
    words = normalise(prediction).split()
    return max(_f1(words, normalise(reference).split()) for reference in _require(references))


def token_f1_unaccented(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of normalised words without accents (ZeroSCROLLS).

    The official script writes the words in ASCII with Unidecode, whose licence is the GPL. Here
    accents, compatibility forms and typographic marks are: on English texts with such characters,
    0.1 % of the scores differ. Other alphabets stay, so that Moskva is not Москва.
    """
    words = _unaccented(normalise(prediction)).split()
    return max(
        _f1(words, _unaccented(normalise(reference)).split()) for reference in _require(references)
    )


def token_f1_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of words segmented by jieba (LongBench)."""
    words = _chinese_words(prediction)
    return max(_f1(words, _chinese_words(reference)) for reference in _require(references))


def character_f1_chinese(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 over the references, of single characters (InfiniteBench)."""
    characters = normalise_chinese(prediction)
    return max(_f1(characters, normalise_chinese(reference)) for reference in _require(references))


def segment_chinese(text: str) -> list[str]:
    """Segment a text into words with jieba, 2,048 characters at a time."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    return [
        word
        for start in range(0, len(text), _SEGMENTED_AT_ONCE)
        for word in jieba.cut(text[start : start + _SEGMENTED_AT_ONCE], cut_all=False)
    ]


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


def _require_visible(references: Sequence[str]) -> None:
    for reference in _require(references):
        if not reference.strip():
            raise ValueError(
                f"the reference {reference!r} is contained in any answer; remove it, or use the "
                "metric exact_match"
            )
