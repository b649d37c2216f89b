"""Scorers for answers that are lists or mappings; a model's text is parsed, never evaluated."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from sah.benchmarks.scorers.literals import between, literal, python_literal
from sah.benchmarks.scorers.numbers import integer
from sah.benchmarks.scorers.text import decompose, normalise, token_f1


def cloze_exact(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of masks filled with exactly the right words (LooGLE).

    Unlike in LooGLE's script, the mapping may stand in other text, and all examples count alike,
    however many masks they have.
    """
    right, given = _right_mapping(references), _mapping(prediction)
    return sum(bool(given.get(mask) == value) for mask, value in right.items()) / len(right)


def cloze_partial(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of masks filled with at least one of the right words (LooGLE).

    Deviates from LooGLE's script as `cloze_exact` does. A number counts as the text of it, while
    theirs cannot score the example.
    """
    right, given = _right_mapping(references), _mapping(prediction)
    shared = [
        not {*str(value).split()}.isdisjoint(str(given.get(mask, "")).split())
        for mask, value in right.items()
    ]
    return sum(shared) / len(right)


def list_subspan(
    prediction: str,
    references: Sequence[str],
    *,
    several: bool = False,
    strict: bool = False,
    **_extras: Any,
) -> float:
    """Return 1 if the answer contains a reference; with `several`, if each has an answer (LOFT).

    Args:
        prediction: text with a list of answers in brackets.
        references: the right answers.
        several: whether all of them are asked for, each matched by a different answer, or any one.
        strict: whether answers are read as in Google's script: from the first line with brackets,
            nothing if it is not a Python list. An empty string is then an answer, which is part of
            every reference. Otherwise the text after `Final Answer:`, or the first line, is an
            answer too, and what SQuAD's normalisation leaves empty is none.
    """
    answers, right = _sides(prediction, references, strict)
    if not answers:
        return 0.0
    if not several:
        return float(any(reference in answers[0] for reference in right))
    fits = [
        [n for n, answer in enumerate(answers) if reference in answer or answer in reference]
        for reference in right
    ]
    return float(bool(right) and _all_matched(fits))


def list_exact(
    prediction: str,
    references: Sequence[str],
    *,
    several: bool = False,
    strict: bool = False,
    **_extras: Any,
) -> float:
    """Return 1 if the answer is a reference; with `several`, if the two sets are equal (LOFT)."""
    answers, right = _sides(prediction, references, strict)
    if several:
        return float(bool(answers) and set(answers) == set(right))
    return float(bool(answers) and answers[0] in right)


def list_f1(
    prediction: str, references: Sequence[str], *, strict: bool = False, **_extras: Any
) -> float:
    """Return the token F1 of the first answer (LOFT)."""
    answers, right = _sides(prediction, references, strict)
    return token_f1(answers[0], right) if answers and right else 0.0


def list_coverage(
    prediction: str, references: Sequence[str], *, strict: bool = False, **_extras: Any
) -> float:
    """Return the share of the references that are among the answers (LOFT).

    Google's script leaves out examples without an answer, which count 0 here.
    """
    answers, right = _sides(prediction, references, strict)
    return len(set(answers) & set(right)) / len(right) if right else 0.0


def concordance_index(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the share of pairs in the right order (ZeroSCROLLS' `book_sum_sort`).

    Prediction and references are numbers separated by commas or white space; everything else is
    ignored, as in the official script. 0 if the prediction is not a permutation of the reference.
    A random order scores 0.5 on average (arXiv:2305.14196).
    """
    given = _order(prediction)
    return max(_concordance(given, _order(reference)) for reference in references)


def node_set_f1(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return the best F1 of the set in the last line, `Final Answer: [a, b]` (graph walks).

    The reference is such a line too. Two empty sets score 1, and an answer whose last line is of
    another form 0. As in NVIDIA's port (NeMo Gym), empty last lines do not count; the code on
    OpenAI's data card reads `Final Answer: [` as a part of the first name, which then never counts.
    """
    given = _final_answer(prediction)
    return max(_set_f1(given, _final_answer(reference)) for reference in references)


def _set_f1(given: set[str] | None, right: set[str] | None) -> float:
    if right is None:
        raise ValueError("the last line of a reference is not of the form Final Answer: [a, b]")
    if given is None:
        return 0.0
    return 2 * len(given & right) / (len(given) + len(right)) if given or right else 1.0


def _final_answer(text: str) -> set[str] | None:
    """Return the items of the list in the last line; None if it has no list."""
    line = text.rstrip().rpartition("\n")[2]
    found = re.search(r"Final Answer:\s*+\[", line)
    end = line.rfind("]")
    if found is None or end < found.end():
        return None
    return {item.strip() for item in line[found.end() : end].split(",")} - {""}


def _concordance(given: Sequence[int | None], right: Sequence[int | None]) -> float:
    if not right or None in right:
        raise ValueError("the reference is not a list of numbers separated by commas")
    if Counter(given) != Counter(right):
        return 0.0
    place = {item: position for position, item in enumerate(given)}
    pairs = [place[first] < place[second] for first, second in combinations(right, 2)]
    return sum(pairs) / len(pairs) if pairs else 1.0


def _order(text: str) -> list[int | None]:
    return [integer(item) for item in re.sub(r"[^0-9\s,]", "", text).replace(",", " ").split()]


def _right_mapping(references: Sequence[str]) -> Mapping[str, Any]:
    right = _mapping(references[0])
    if not right:
        raise ValueError(f"the reference {references[0]!r} is not a JSON object")
    return right


def _mapping(text: str) -> Mapping[str, Any]:
    """Parse the JSON object or Python dict literal in a text; empty if there is none."""
    value = literal(between(text, "{", "}"))
    return value if isinstance(value, dict) else {}


def _sides(prediction: str, references: Sequence[str], strict: bool) -> tuple[list[str], list[str]]:
    """Return the answers and the references under SQuAD's normalisation."""
    text = prediction.replace("*", "").replace("`", "").strip()
    answers, right = (
        [normalise(decompose(item)) for item in side]
        for side in (_strict_answers(text) if strict else _answers(text), references)
    )
    if strict:
        return answers, right
    return [item for item in answers if item], [item for item in right if item]


def _strict_answers(text: str) -> list[str]:
    """Return the list in the first line with brackets; nothing if it is not one."""
    for line in text.split("\n"):
        if "[" in line and "]" in line:
            value = python_literal(_escaped(between(line, "[", "]"), "[a-zA-Z0-9]"))
            return [str(item) for item in value] if isinstance(value, list | tuple) else []
    return []


def _answers(text: str) -> list[str]:
    """Return the first list in a line, else the text after `Final Answer:`, else the first line."""
    lines = text.split("\n")
    for line in lines:
        value = literal(_escaped(between(line, "[", "]")))
        if isinstance(value, list):
            return [str(item) for item in value]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        _, stated, after = line.lower().partition("final answer")
        if stated and (answer := after.lstrip(": ") or following):
            return [answer]
    return lines[:1]


def _escaped(text: str, letter: str = r"\w") -> str:
    """Escape apostrophes between letters, which do not end a string."""
    return re.sub(rf"({letter})'({letter})", r"\1\\'\2", text)


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
