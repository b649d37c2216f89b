"""LongBench's scorers for classification, counting, retrieval and code."""

import re
from collections.abc import Sequence
from typing import Any


def classification(
    prediction: str, references: Sequence[str], *, all_classes: Sequence[str], **_extras: Any
) -> float:
    """Return 1 / n if the right class is among the n classes that the prediction names, else 0.

    A class whose name is part of the right class's name does not count. As published, the class
    after such a class is not checked for this.
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


def only_classes(
    prediction: str, references: Sequence[str], *, all_classes: Sequence[str], **_extras: Any
) -> float:
    """Return 1 if the first sentence names all references and no other class (BABILong).

    Classes are found as whole words, ignoring case; theirs also as parts of words. Examples that
    the model goes on to write do not count.
    """
    text = re.split(r"\.|<context>|<example>|question:", prediction.lower(), maxsplit=1)[0]
    words = set(re.findall(r"\w+", text))
    named = {name for name in map(str.lower, {*all_classes, *references}) if name in words}
    return float(bool(named) and named == {reference.lower() for reference in references})


def first_identifier(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first identifier of the answer is a reference.

    Quotes, the language of a code block, `def`, and a class or module before a dot are ignored.
    """
    text = re.sub(r"^\s*```\w*", "", prediction)
    found = re.match(r"\W*(?:async\s+)?(?:def\s+)?(?:\w+\.)*(\w+)", text)
    return float(found is not None and found[1] in references)


def count(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of the prediction's numbers that are the right one."""
    return max(_share_of_numbers(prediction, reference) for reference in references)


def paragraph_retrieval(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of the prediction's numbers that are the 7 of `Paragraph 7`."""
    return max(_share_of_numbers(prediction, _only_number(item)) for item in references)


def code_similarity(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the edit similarity of the first line of code to the reference, in whole per cent.

    The first line of code is the first one without a backtick, `#` or `//`. The ratio is
    rapidfuzz's, equal to that of LongBench's fuzzywuzzy with python-Levenshtein.
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
        raise ValueError(
            f"the reference {reference!r} does not name a paragraph, such as Paragraph 7"
        )
    return found.group(1)
