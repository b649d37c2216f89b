"""Excerpts of long contexts."""

import re
from dataclasses import replace

import pytest

from sah.results.excerpts import excerpt, shown
from sah.types import Example

NUMBERS = "".join(f"{number:04}|" for number in range(2000))


@pytest.mark.parametrize(
    ("references", "shown_besides"),
    [
        ((), []),
        (("not there",), []),
        (("",), []),
        (("0100|",), [(0, 805)]),
        (("0500|",), [(2200, 2805)]),
        (("0500|", "0560|"), [(2200, 3105)]),
        (("0500|", "1000|"), [(2200, 2805), (4700, 5305)]),
        # The text around this reference reaches the end.
        (("1850|",), [(8950, 9555)]),
        # At the very beginning; a long reference is shown in part.
        ((NUMBERS[:900],), [(0, 600)]),
        ((NUMBERS[3000:5000],), [(2700, 3600)]),
        # Only the first four references count.
        (("", "a", "b", "c", "0500|"), []),
    ],
)
def test_excerpts_show_both_ends_and_references_and_count_the_rest(references, shown_besides):
    expected = ["?"] * len(NUMBERS)
    for start, end in [(0, 600), (9400, 10000), *shown_besides]:
        expected[start:end] = NUMBERS[start:end]
    text = excerpt(NUMBERS, references)
    counted = re.sub(
        r"\n\[… ([\d,]+) characters …\]\n",
        lambda found: "?" * int(found[1].replace(",", "")),
        text,
    )
    assert counted == "".join(expected)


@pytest.mark.parametrize(("length", "whole"), [(3000, True), (3001, False)])
def test_a_context_is_cut_from_3001_characters_on(length, whole):
    assert (excerpt("x" * length, ()) == "x" * length) is whole


def test_overlapping_places_are_shown_once():
    text = excerpt("x" * 590 + "needle" + "y" * 9000, ("needle", "needle"))
    assert text.count("needle") == 1


def test_shown_has_everything_needed_to_judge_an_answer():
    example = Example(
        id="1", task="t", context="c", question="q", references=("r",), max_new_tokens=1
    )
    assert shown(example) == {
        "example_id": "1",
        "task": "t",
        "context": "c",
        "question": "q",
        "answer_prefix": "",
        "references": ["r"],
    }


def test_metadata_is_shown_where_there_is_any():
    example = Example(id="0", task="t", context="c", question="q", references=(), max_new_tokens=1)
    assert "metadata" not in shown(example)
    noted = replace(example, metadata={"needles": [{"answer": "7", "depth": 0.5, "tokens": 9}]})
    assert shown(noted)["metadata"] == noted.metadata
