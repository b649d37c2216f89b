"""Scorers for answers that are numbers, compared as numbers."""

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sah.benchmarks.scorers.equivalence import last_box, normal_form, rational

# Numbers joined by commas, which may be one number or several. A hyphen after a letter or digit is
# not a sign. Possessive, so that the search takes time linear in the text.
_NUMBERS = r"(?:(?<!\w)-)?\d++(?:\.\d++)?+(?:,\d++(?:\.\d++)?+)*+"
# Longer numbers are compared digit by digit.
_LONGEST = 300
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})++(?:\.\d++)?+")


def first_integer(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first run of digits is the reference, as text (InfiniteBench's keys)."""
    found = re.search(r"[0-9]+", prediction)
    return float(found is not None and found.group() in references)


def first_number(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first number equals the reference (InfiniteBench's `math_find`).

    Unlike in the official script, a minus sign and the commas of 1,234 are part of the number, and
    7.0 equals 7.
    """
    first = next(_numbers(prediction), None)
    return float(first is not None and Decimal(first) in map(Decimal, references))


def last_integer(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the last word is the right integer (InfiniteBench's `code_run`)."""
    words = re.sub(r"[\n.`'\":]", " ", prediction).split()
    return float(bool(words) and integer(words[-1]) in [int(item) for item in references])


def leading_integers(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of references that come first, in order (InfiniteBench's `math_calc`)."""
    right = 0
    for given, reference in zip(re.finditer(r"[0-9]+", prediction), references, strict=False):
        if integer(given.group()) != int(reference):
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
    r"""Return 1 if the answer is the right integer from 0 to 999; 033 equals 33 (AIME).

    The answer is the value of the last `\boxed{…}`, or the last number in it, else the number after
    the last `answer is`, else the last number of the last line that has one. A comma separates
    numbers, except in 1,234, which is out of range.
    """
    answer = competition_answer(prediction)
    return float(answer in {str(int(reference)) for reference in references})


def competition_answer(prediction: str) -> str | None:
    """Return the integer that `competition_integer` compares, such as `33`; None if out of range.

    033 and 33.0 are 33.
    """
    found = re.fullmatch(r"0*(\d{1,3})(?:\.0*)?", _last_number(prediction) or "")
    return None if found is None else str(int(found.group(1)))


def final_number(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    r"""Return 1 if the final answer is the right number: 1,234 equals $1234.00 (GSM8K).

    The answer is found as in AIME.
    """
    answer = number_answer(prediction)
    return float(answer is not None and answer in map(number_answer, references))


def number_answer(prediction: str) -> str | None:
    """Return the number that `final_number` compares, such as `18` or `37/2`; None without one."""
    found = _last_number(prediction)
    return found if found is None or len(found) > _LONGEST else str(Fraction(found))


def integer(text: str) -> int | None:
    """Parse an integer; None for any other text and for more digits than Python converts."""
    try:
        return int(text)
    except ValueError:
        return None


def _last_number(text: str) -> str | None:
    """Return the number in the last box, else the last one stated, else that of the last line."""
    in_box = _number_in(last_box(text) or "")
    if in_box is not None:
        return in_box
    stated = rf"(?:answer|solution)\s*+(?:is|:)\s*+\$?({_NUMBERS})"
    answers = re.findall(stated, text, flags=re.IGNORECASE)
    if answers:
        return next(_numbers(answers[-1]))
    for line in reversed(text.splitlines()):
        found = [run[0] for run in re.finditer(_NUMBERS, line) if _stands_alone(line, *run.span())]
        if found:
            return list(_numbers(found[-1]))[-1]
    return None


def _number_in(box: str) -> str | None:
    r"""Return the value of what is in a box, such as 25/2 of \frac{25}{2}, else its last number."""
    value = rational(normal_form(box)) if len(box) <= _LONGEST else None
    return value or next(reversed(list(_numbers(box))), None)


def _numbers(text: str) -> Iterator[str]:
    """Yield the numbers in a text without commas: 1,234 is one; 12,33 and 3,4,5 are several."""
    for found in re.finditer(_NUMBERS, text):
        if _THOUSANDS.fullmatch(found.group()):
            yield found.group().replace(",", "")
        else:
            yield from found.group().split(",")


def _stands_alone(line: str, start: int, end: int) -> bool:
    """Whether neither a letter nor a digit is next to a part of a line."""
    return not re.search(r"\w", line[max(start - 1, 0) : start] + line[end : end + 1])


def _percentage(text: str) -> float | None:
    found = re.search(r"(?<!\d)(\d++(?:\.\d*+)?+)%", text)
    return None if found is None else float(found.group(1))
