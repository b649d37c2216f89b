import pytest

from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder


def test_without_a_subset_all_tasks_come_in_order(tiny):
    made = Ruler(context_tokens=1800, samples=1).examples(tiny.prompts, seed=0)
    assert [item.task for item in made] == list(Ruler().available_subsets())


def test_subsets_come_in_the_benchmarks_order_and_once(tiny):
    chosen = ["niah_single_2", "niah_single_1", "niah_single_2"]
    made = Ruler(subset=chosen, context_tokens=400, samples=1).examples(tiny.prompts, seed=0)
    assert [item.task for item in made] == ["niah_single_1", "niah_single_2"]


def test_a_context_larger_than_the_model_takes_is_an_error_that_names_both(tiny):
    encoder = PromptEncoder(tiny.prompts.tokenizer, 512)
    Ruler(context_tokens=512, samples=1, subset="niah_single_1").examples(encoder, seed=0)
    with pytest.raises(ConfigurationError, match=r"context_tokens=513 .* 512 tokens"):
        Ruler(context_tokens=513, samples=1).examples(encoder, seed=0)


def test_a_model_without_a_limit_takes_any_context(tiny, prompt_tokens):
    encoder = PromptEncoder(tiny.prompts.tokenizer, None)
    (example,) = Ruler(context_tokens=9000, samples=1, subset="niah_single_1").examples(
        encoder, seed=0
    )
    assert 8900 < prompt_tokens(example) + 128 <= 9000


@pytest.mark.parametrize("field", ["context_tokens", "samples", "limit"])
def test_counts_below_one_are_errors(field):
    with pytest.raises(ConfigurationError, match=rf"benchmark\.{field} must be at least 1, got 0"):
        Ruler(**{field: 0})


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("1234567 and 7654321", 1.0),
        ("7654321, 1234567.", 1.0),
        ("the first is 1234567", 0.5),
        ("12345677654321", 1.0),
        ("123456", 0.0),
        ("", 0.0),
    ],
)
def test_the_score_is_the_share_of_references_contained(text, score, example, predict):
    asked = [example(references=("1234567", "7654321"))]
    (found,) = Ruler().score(asked, predict(asked, lambda example: text))
    assert found.score == score
