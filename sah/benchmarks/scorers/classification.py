"""LongBench's scores for classification, counting, retrieval and code."""

import re
from collections.abc import Sequence
from typing import Any


def classification(
    prediction: str, references: Sequence[str], *, all_classes: Sequence[str], **_extras: Any
) -> float:
    """1 / n if the right class is among the n classes that the prediction names, else 0.

    Classes whose names are part of the right one's do not count. As published, the class
    after one that is left out for that is not looked at.
    """

    def score(reference: str) -> float:
        named = [name for name in all_classes if name in prediction]
        position = 0
        while position < len(named):
            if named[position] in reference and named[position] != reference:
                del named[position]
            position += 1
        return 1 / len(named) if reference in named else 0.0

    return max(map(score, references))


def count(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Share of the numbers in the prediction that are the right one."""
    return max(_share_of_numbers(prediction, reference) for reference in references)


def paragraph_retrieval(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Share of the numbers in the prediction that are the one of `Paragraph 7`."""
    return max(_share_of_numbers(prediction, _only_number(item)) for item in references)


def code_similarity(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Edit similarity of the first line of code with the reference, in whole per cent.

    The first line without a backtick, `#` or `//`. The ratio is that of rapidfuzz, which
    LongBench's fuzzywuzzy gives with python-Levenshtein.
    """
    from rapidfuzz.fuzz import ratio

    lines = prediction.lstrip("\n").split("\n")
    code = [line for line in lines if not any(mark in line for mark in ("`", "#", "//"))]
    if not code or not code[0]:
        return 0.0
    return max(round(ratio(code[0], reference)) for reference in references) / 100


def _share_of_numbers(prediction: str, number: str) -> float:
    found = re.findall(r"\d+", prediction)
    return found.count(number) / len(found) if found else 0.0


def _only_number(reference: str) -> str:
    found = re.search(r"(?:Paragraph |段落)(\d+)", reference)
    if found is None:
        raise ValueError(f"the reference {reference!r} names no paragraph")
    return found.group(1)
