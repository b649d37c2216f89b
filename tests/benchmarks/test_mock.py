import pytest

from sah.benchmarks.mock import Mock


@pytest.mark.parametrize(
    ("text", "score"), [("otto.", 1.0), (" Otto. ", 1.0), ("Otto!", 0.0), (".", 0.0)]
)
def test_a_final_full_stop_is_ignored(text, score, tiny, predict):
    asked = Mock().examples(tiny.prompts, seed=0)[:1]
    assert asked[0].references == ("Otto",)
    (found,) = Mock().score(asked, predict(asked, lambda example: text))
    assert found.score == score
