import pytest

from sah.benchmarks.mock import Mock
from sah.benchmarks.scorers import contained_share, exact_match


@pytest.mark.parametrize(
    ("prediction", "references", "score"),
    [
        ("Otto", ["Otto"], 1.0),
        ("otto", ["OTTO"], 1.0),
        ("  Otto\n", ["Otto"], 1.0),
        ("Otto", [" Otto "], 1.0),
        ("Otto the cat", ["Otto"], 0.0),
        ("Ott", ["Otto"], 0.0),
        ("Otto.", ["Otto"], 0.0),
        ("", ["Otto"], 0.0),
        (" \n", ["Otto"], 0.0),
        ("b", ["a", "b"], 1.0),
        ("c", ["a", "b"], 0.0),
        ("STRASSE", ["Straße"], 1.0),
        ("ÉCOLE", ["école"], 1.0),
        ("ecole", ["école"], 0.0),
        ("漢字", ["漢字"], 1.0),
    ],
)
def test_exact_match(prediction, references, score):
    assert exact_match(prediction, references) == score


@pytest.mark.parametrize(
    ("prediction", "references", "score"),
    [
        ("It is 42.", ["42"], 1.0),
        ("It is 42.", ["42", "43"], 0.5),
        ("43 42", ["42", "43"], 1.0),
        ("one", ["one", "two", "three", "four"], 0.25),
        ("GENTLE-River", ["gentle-river"], 1.0),
        ("gentle river", ["gentle-river"], 0.0),
        ("", ["42", "43"], 0.0),
        ("ÜBER", ["über"], 1.0),
        ("4 2", ["42"], 0.0),
    ],
)
def test_contained_share(prediction, references, score):
    assert contained_share(prediction, references) == score


@pytest.mark.parametrize(
    ("text", "score"), [("otto.", 1.0), (" Otto. ", 1.0), ("Otto!", 0.0), (".", 0.0)]
)
def test_mock_forgives_a_full_stop(text, score, tiny, predict):
    asked = Mock().examples(tiny.prompts, seed=0)[:1]
    assert asked[0].references == ("Otto",)
    (found,) = Mock().score(asked, predict(asked, lambda example: text))
    assert found.score == score
