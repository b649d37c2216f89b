"""Scorers for answers that are lists or mappings; a model's text is parsed, never evaluated."""

import ast
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from sah.benchmarks.scorers.text import normalise, token_f1


def cloze_exact(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of masks filled with exactly the right words (LooGLE).

    Unlike LooGLE's, which is the share over all masks of the data set, it is a score per example.
    """
    right, given = _mapping(references[0]), _mapping(prediction)
    if not right:
        raise ValueError(f"the reference {references[0]!r} is not a JSON object")
    return sum(bool(given.get(mask) == value) for mask, value in right.items()) / len(right)


def cloze_partial(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of masks filled with at least one of the right words (LooGLE)."""
    right, given = _mapping(references[0]), _mapping(prediction)
    if not right:
        raise ValueError(f"the reference {references[0]!r} is not a JSON object")
    shared = [
        not {*str(value).split()}.isdisjoint(str(given.get(mask, "")).split())
        for mask, value in right.items()
    ]
    return sum(shared) / len(right)


def list_subspan(
    prediction: str, references: Sequence[str], *, several: bool = False, **_extras: Any
) -> float:
    """Return 1 if the answer contains a reference; with `several`, if each has an answer (LOFT).

    Args:
        prediction: text with a list of answers in brackets.
        references: the right answers.
        several: whether all of them are asked for, each matched by a different answer, or any one.
    """
    answers, right = _answers(prediction), _normalised(references)
    if not answers:
        return 0.0
    if not several:
        return float(any(reference in answers[0] for reference in right))
    fits = [
        [n for n, answer in enumerate(answers) if reference in answer or answer in reference]
        for reference in right
    ]
    return float(_all_matched(fits))


def list_exact(
    prediction: str, references: Sequence[str], *, several: bool = False, **_extras: Any
) -> float:
    """Return 1 if the answer is a reference; with `several`, if the two sets are equal (LOFT)."""
    answers, right = _answers(prediction), _normalised(references)
    if several:
        return float(set(answers) == set(right))
    return float(bool(answers) and answers[0] in right)


def list_f1(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the token F1 of the first answer (LOFT)."""
    answers = _answers(prediction)
    return token_f1(answers[0], _normalised(references)) if answers else 0.0


def list_coverage(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of the references that are among the answers (LOFT)."""
    return len(set(_answers(prediction)) & set(_normalised(references))) / len(references)


def concordance_index(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of pairs in the right order (ZeroSCROLLS' `book_sum_sort`).

    Prediction and references are numbers separated by commas; 0 if the prediction is not a
    permutation of the reference. A random order scores 0.5 on average (arXiv:2305.14196).
    """
    return max(_concordance(_order(prediction), _order(reference)) for reference in references)


def _concordance(given: Sequence[int], right: Sequence[int]) -> float:
    if not right:
        raise ValueError("the reference is not a list of numbers separated by commas")
    if sorted(given) != sorted(right):
        return 0.0
    place = {item: position for position, item in enumerate(given)}
    pairs = [place[first] < place[second] for first, second in combinations(right, 2)]
    return sum(pairs) / len(pairs) if pairs else 1.0


def _order(text: str) -> list[int]:
    """Parse numbers separated by commas, ignoring words; empty if a number is missing."""
    items = [item.strip() for item in re.sub(r"[^0-9\s,]", "", text).split(",")]
    return [int(item) for item in items] if all(map(str.isdigit, items)) else []


def _mapping(text: str) -> Mapping[str, Any]:
    """Parse the JSON object or Python dict literal in a text; empty if there is none."""
    found = re.search(r"\{.*\}", text, flags=re.DOTALL)
    value = _literal(found.group()) if found else None
    return value if isinstance(value, dict) else {}


def _literal(text: str) -> Any:
    """Parse JSON or a Python literal; None for anything else."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _answers(prediction: str) -> list[str]:
    """Return the answers of the first line with a list, else the text after `Final Answer:`.

    Without either, the first line is the answer, since the prompt ends with `Final Answer:`. All
    answers are normalised.
    """
    lines = prediction.replace("*", "").replace("`", "").strip().split("\n")
    for line in lines:
        found = re.search(r"\[.*\]", line)
        # An apostrophe between letters does not end a string.
        value = _literal(re.sub(r"(\w)'(\w)", r"\1\\'\2", found.group())) if found else None
        if isinstance(value, list) and value:
            return _normalised([str(item) for item in value])
    for line in lines:
        _, stated, after = line.lower().partition("final answer")
        if stated and after.lstrip(": "):
            return _normalised([after.lstrip(": ")])
    return _normalised([lines[0]]) if lines[0] else []


def _normalised(answers: Sequence[str]) -> list[str]:
    return [normalise(unicodedata.normalize("NFD", answer)) for answer in answers]


def _all_matched(fits: Sequence[Sequence[int]]) -> bool:
    """Whether each row can be matched to a different column among those that fit it."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column in fits[row]:
            if column in tried:
                continue
            tried.add(column)
            if column not in owner or place(owner[column], tried):
                owner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(fits)))
