"""Excerpts of examples: the few kilobytes that a report shows of each."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sah.types import Example

# A context may have a million characters; a report shows both ends and the text around answers.
_WHOLE = 3000
_END = 600
_AROUND = 300
_MOST_REFERENCES = 4


def shown(example: Example) -> dict[str, Any]:
    """Return the parts of an example that a person needs to judge an answer."""
    return {
        "example_id": example.id,
        "task": example.task,
        "context": excerpt(example.context, example.references),
        "question": example.question,
        "answer_prefix": example.answer_prefix,
        "references": list(example.references),
        **({"follow_up": asdict(example.follow_up)} if example.follow_up else {}),
        **({"metadata": dict(example.metadata)} if example.metadata else {}),
    }


def origins(examples: Iterable[Example]) -> list[str]:
    """Return the data sets that examples were read from, each with its commit or folder."""
    return sorted({example.origin for example in examples if example.origin})


def excerpt(context: str, references: tuple[str, ...]) -> str:
    """Shorten a context to its ends and the text around each reference.

    Omissions are marked with their number of characters.
    """
    if len(context) <= _WHOLE:
        return context
    places = [(0, _END), (len(context) - _END, len(context))]
    for reference in references[:_MOST_REFERENCES]:
        found = context.find(reference) if reference else -1
        if found >= 0:
            end = min(len(context), found + len(reference) + _AROUND)
            # A reference may itself be a whole text.
            places.append((max(0, found - _AROUND), min(end, found + 2 * _AROUND)))
    pieces, written = [], 0
    for start, end in sorted(places):
        start = max(start, written)
        if start >= end:
            continue
        if start > written:
            pieces.append(f"\n[… {start - written:,} characters …]\n")
        pieces.append(context[start:end])
        written = end
    return "".join(pieces)
