from sah.results.examples import excerpt, shown
from sah.types import Example

LONG = "a" * 5000 + "the needle" + "b" * 5000


def test_a_short_context_is_kept_whole():
    assert excerpt("short", ("needle",)) == "short"


def test_a_long_context_keeps_its_ends_and_the_surroundings_of_references():
    text = excerpt(LONG, ("needle",))
    assert len(text) < 3000
    assert text.startswith("a" * 600)
    assert text.endswith("b" * 600)
    assert "athe needleb" in text
    assert text.count("characters …]") == 2


def test_what_is_left_out_is_counted():
    text = excerpt(LONG, ("not there",))
    assert f"[… {len(LONG) - 1200:,} characters …]" in text


def test_overlapping_places_are_shown_once():
    text = excerpt("x" * 590 + "needle" + "y" * 9000, ("needle", "needle"))
    assert text.count("needle") == 1


def test_shown_holds_what_a_judge_needs():
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
