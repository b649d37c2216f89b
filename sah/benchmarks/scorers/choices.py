"""Scorers for multiple choice."""

import re
from collections.abc import Sequence
from typing import Any


def stated_choice(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if it says `The correct answer is (B)` with the right letter (LongBench-v2)."""
    text = prediction.replace("*", "")
    for pattern in (r"The correct answer is \(([A-D])\)", r"The correct answer is ([A-D])"):
        found = re.search(pattern, text)
        if found:
            return float(found.group(1) in references)
    return 0.0


def first_choice(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    """Return 1 if the first standalone A to D is the reference's (ZeroSCROLLS' `quality`)."""
    letter = _lone_letter(prediction)
    return float(letter is not None and letter in map(_lone_letter, references))


def last_choice(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Apply InfiniteBench's rule for books: a line's last letter, else what follows `answer is`.

    Args:
        prediction: the answer.
        references: the right letter.
        options: texts of A, B, C and D; the text of the right option counts like its letter.
    """
    right = _with_texts(references, options)
    text = prediction.strip()
    if not text:
        return 0.0
    last = re.search(r"\b[A-D]\b(?!.*\b[A-D]\b)", text)
    if last and last.group() in right:
        return 1.0
    if text[0] in "ABCD":
        return float(text[0] in right)
    if text in right:
        return 1.0
    text = " ".join(re.sub(r"[\n\"'.,?!{}]", " ", text).split(" "))
    text = re.sub(r" {2,}", " ", text)
    for prefix in ("answer is:", "answer:", "answer is", "option is"):
        _, found, after = text.partition(prefix)
        if found:
            return float(any(after[1:].startswith(item) for item in right))
    letters = [word for word in text.split() if word in tuple("ABCD")]
    return float(bool(letters) and letters[0] in right)


def bug_choice(
    prediction: str, references: Sequence[str], *, options: Sequence[str] = (), **_extras: Any
) -> float:
    """Apply InfiniteBench's rule for `code_debug`: the letter, or the name of the function.

    Args:
        prediction: the answer.
        references: the right letter.
        options: names of the functions A, B, C and D.
    """
    right = _with_texts(references, options)
    text = prediction.strip()
    last = re.search(r"\b[A-J]\b(?!.*\b[A-J]\b)", text)
    if last and last.group() in references:
        return 1.0
    text = re.sub(r"[\n`'\"*-]|[Oo]ption", " ", text)
    text = re.sub(r" {2,}", " ", text)
    if any(text.startswith(item) for item in right):
        return 1.0
    for prefix in ("answer is:", "is:", "answer:", "correct option is:"):
        _, found, after = text.partition(prefix)
        if found:
            return float(any(after[1:].startswith(item) for item in right))
    return 0.0


def _with_texts(letters: Sequence[str], options: Sequence[str]) -> list[str]:
    texts = [options["ABCD".index(letter)] for letter in letters] if options else []
    return [*letters, *texts]


def _lone_letter(text: str) -> str | None:
    found = re.search(r"\b[A-D]\b", text)
    return None if found is None else found.group()
