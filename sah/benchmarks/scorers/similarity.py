"""Scorers for answers that repeat a text."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

# The time is quadratic in what is compared.
_COMPARED = 4


def prefixed_similarity(
    prediction: str, references: Sequence[str], *, prefix: str = "", **_extras: Any
) -> float:
    """Return difflib's similarity to the reference if the answer begins with a prefix (MRCR).

    The best ratio over the references, of what follows the prefix; 0 without it. Unlike in OpenAI's
    script, outer white space does not count, and only the first characters of an answer are
    compared, four times as many as the reference has; the others count as different.
    """
    answer = prediction.strip()
    if not answer.startswith(prefix):
        return 0.0
    answer = answer.removeprefix(prefix).strip()
    return max(
        _ratio(answer, reference.strip().removeprefix(prefix).strip()) for reference in references
    )


def _ratio(answer: str, reference: str) -> float:
    length = len(answer) + len(reference)
    if length == 0:
        return 1.0
    matcher = SequenceMatcher(None, answer[: _COMPARED * len(reference)], reference)
    return 2 * sum(block.size for block in matcher.get_matching_blocks()) / length
