"""Scorers for multiple choice."""

import re
from collections.abc import Sequence
from typing import Any

# Marks between a statement and its letter: bounded, so that the search takes linear time.
_MARKS = r"(?:\\(?:boxed|text|textbf|mathrm|mathbf)|[ ${(\[]){0,8}+"
_FINAL_LETTER = re.compile(
    rf"(?i:answer)\s*+:\s*+{_MARKS}([A-D])\b"
    rf"|(?i:answer\s++is)\s*+:?+\s*+{_MARKS}([A-D])(?=[^\w\s]|[^\S\n]*+$)"
    rf"|boxed\s*+\{{{_MARKS}([A-D])\b",
    re.MULTILINE,
)


def stated_choice(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if it says `The correct answer is (B)` with the right letter (LongBench-v2)."""
    return float(stated_letter(prediction) in references)


def stated_letter(prediction: str) -> str | None:
    """Return the letter that `stated_choice` compares; None if there is none."""
    text = prediction.replace("*", "")
    for pattern in (r"The correct answer is \(([A-D])\)", r"The correct answer is ([A-D])"):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def final_choice(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    r"""Return 1 if the last letter stated is right, as `Answer: B` or `\boxed{B}` (GPQA).

    `answer is (B)` counts too, if a mark or the end of the line follows the letter, unlike in
    `answer is A model`.
    """
    return float(final_letter(prediction) in references)


def final_letter(prediction: str) -> str | None:
    """Return the letter that `final_choice` compares; None if there is none."""
    last = None
    for found in _FINAL_LETTER.finditer(prediction.replace("*", "")):
        last = next(filter(None, found.groups()))
    return last


def choice_simple_evals(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first letter after `Answer:` is right (GPQA by OpenAI's simple-evals).

    As in their script, that may be the first letter of a word: `Answer: Because` is B.
    """
    found = re.search(r"(?i:answer)[ \t]*+:[ \t]*+\$?([A-Da-d])", prediction)
    return float(found is not None and found.group(1) in references)


def first_choice(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first standalone A to D is the reference's (ZeroSCROLLS' `quality`)."""
    letter = _lone_letter(prediction)
    return float(letter is not None and letter in map(_lone_letter, references))


def choice_kvpress(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Return 1 if a line ends with the right letter, or by OpenBMB's rule (InfiniteBench's books).

    kvpress's rule. The last letter counts only in the first line that has one.

    Args:
        prediction: the answer.
        references: the right letter.
        options: texts of A, B, C and D; the text of the right option counts like its letter.
    """
    if _last_letter(prediction, "A-D") in references:
        return 1.0
    return choice_openbmb(prediction, references, options=options)


def choice_openbmb(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Return 1 if the answer begins with the right choice, or follows `answer is` (InfiniteBench).

    OpenBMB's rule for books: the first letter of the text decides if it is A to D, else what
    follows `answer is` or the like, else the first word that is part of ABCD.

    Args:
        prediction: the answer.
        references: the right letter.
        options: texts of A, B, C and D; the text of the right option counts like its letter.
    """
    right = _with_texts(references, options)
    text = prediction.strip()
    if not text:
        return 0.0
    if text[0] in "ABCD":
        return float(text[0] in right)
    if text in right:
        return 1.0
    text = re.sub(r" {2,}", " ", re.sub(r"[\n\"'.,?!{}]", " ", text))
    stated = _stated(text, right, ("answer is:", "answer:", "answer is", "option is"))
    if stated is not None:
        return float(stated)
    word = next((word for word in text.split() if word in "ABCD"), "")
    return float(bool(word) and word in right)


def code_debug_kvpress(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Return 1 if a line ends with the right letter, or the text begins with letter or function.

    kvpress's rule for InfiniteBench's `code_debug`, else OpenBMB's.

    Args:
        prediction: the answer.
        references: the right letter.
        options: names of the functions A, B, C and D.
    """
    if _last_letter(prediction, "A-J") in references:
        return 1.0
    right = _with_texts(references, options)
    text = _code_text(prediction)
    return float(text.startswith(tuple(right)) or bool(_stated(text, right, _CODE_PREFIXES)))


def code_debug_openbmb(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Return 1 for `B.`, `B:`, or the letter or function after `is:` or `answer:` (InfiniteBench).

    OpenBMB's rule for `code_debug`, which refuses a bare `B` and `(B)`.

    Args:
        prediction: the answer.
        references: the right letter.
        options: names of the functions A, B, C and D.
    """
    if prediction.strip()[:2] in [letter + mark for letter in references for mark in ".:"]:
        return 1.0
    right = _with_texts(references, options)
    return float(bool(_stated(_code_text(prediction), right, _CODE_PREFIXES)))


def dialogue_kvpress(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the answer contains any of the names, ignoring case (InfiniteBench's dialogues).

    kvpress's rule, by which `SAM` is in `SAME`.
    """
    answer = prediction.upper()
    return float(any(name.upper() in answer for name in references))


def dialogue_openbmb(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first name is a word of the answer, ignoring case (InfiniteBench).

    OpenBMB's rule for dialogues; a name of several words never counts.
    """
    words = re.sub(r"[\n:\"'.,?!{}]", " ", prediction).upper().split()
    return float(references[0] in words)


_CODE_PREFIXES = ("answer is:", "is:", "answer:", "correct option is:")


def _code_text(prediction: str) -> str:
    text = re.sub(r"[\n`'\"*-]|[Oo]ption", " ", prediction.strip())
    return re.sub(r" {2,}", " ", text)


def _stated(text: str, right: Sequence[str], prefixes: Sequence[str]) -> bool | None:
    """Whether a right answer follows the first of the prefixes found; None if there is none.

    As published, one character after the prefix is skipped, whatever it is.
    """
    for prefix in prefixes:
        _, found, after = text.partition(prefix)
        if found:
            return after[1:].startswith(tuple(right))
    return None


def _last_letter(text: str, letters: str) -> str | None:
    """Return the last standalone letter of the first line that has one."""
    for line in text.strip().split("\n"):
        found = re.findall(rf"\b[{letters}]\b", line)
        if found:
            return str(found[-1])
    return None


def _with_texts(letters: Sequence[str], options: Sequence[str]) -> list[str]:
    texts = [options["ABCD".index(letter)] for letter in letters] if options else []
    return [*letters, *texts]


def _lone_letter(text: str) -> str | None:
    found = re.search(r"\b[A-D]\b", text)
    return None if found is None else found.group()
