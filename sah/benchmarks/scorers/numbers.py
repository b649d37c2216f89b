"""Scorers for answers that are numbers, compared as numbers."""

import math
import re
from collections.abc import Sequence
from typing import Any


def first_integer(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first run of digits is the reference, as text (InfiniteBench's keys)."""
    found = re.search(r"[0-9]+", prediction)
    return float(found is not None and found.group() in references)


def first_number(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first number equals the reference (InfiniteBench's `math_find`).

    Unlike in the official script, a minus sign is part of the number, and 7.0 equals 7.
    """
    found = re.search(r"-?\d+(?:\.\d+)?", prediction.replace(",", ""))
    return float(found is not None and float(found.group()) in map(float, references))


def last_integer(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the last word is the right integer (InfiniteBench's `code_run`)."""
    words = re.sub(r"[\n.`'\":]", " ", prediction).split()
    if not words or not re.fullmatch(r"[+-]?\d+", words[-1]):
        return 0.0
    return float(int(words[-1]) in map(int, references))


def leading_integers(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of references that come first, in order (InfiniteBench's `math_calc`)."""
    given = [int(digits) for digits in re.findall(r"[0-9]+", prediction)]
    right = 0
    for number, reference in zip(given, references, strict=False):
        if number != int(reference):
            break
        right += 1
    return right / len(references)


def key_value(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the value is a word of the prediction (InfiniteBench's `kv_retrieval`)."""
    words = re.sub(r"[\n:\"'.,?!{}]", " ", prediction).split()
    return float(references[0] in words)


def exponential_similarity(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Halve the score for every ten points of difference (ZeroSCROLLS' `space_digest`).

    2^(-|p - g| / 10) for the first percentages, p predicted and g right (arXiv:2305.14196); 0 if
    the prediction has none. As in the official script, a number without % is not a percentage.
    """
    given = _percentage(prediction)
    right = [_percentage(reference) for reference in references]
    if None in right:
        raise ValueError(f"a reference of {list(references)!r} has no percentage, such as 40%")
    if given is None:
        return 0.0
    return max(math.exp2(-abs(given - value) / 10) for value in right if value is not None)


def competition_integer(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    r"""Return 1 if the answer is the right integer; 033 equals 33 (AIME).

    The answer is the last integer in the last `\boxed{…}`, else the number after the last
    `answer is`, else the last number of the last line that has one.
    """
    answer = _competition_answer(prediction.replace(",", ""))
    return float(answer is not None and answer in {int(reference) for reference in references})


def _competition_answer(text: str) -> int | None:
    boxed = [re.findall(r"\d+", inside) for inside in re.findall(r"\\boxed\{([^}]*)\}", text)]
    if boxed and boxed[-1]:
        return int(boxed[-1][-1])
    stated = re.findall(r"(?:answer|solution)\s*(?:is|:)\s*\$?(\d+)", text, flags=re.IGNORECASE)
    if stated:
        return int(stated[-1])
    for line in reversed(text.splitlines()):
        numbers = re.findall(r"\b\d+\b", line)
        if numbers:
            return int(numbers[-1])
    return None


def _percentage(text: str) -> float | None:
    found = re.search(r"(\d+(?:\.\d*)?)%", text)
    return None if found is None else float(found.group(1))
