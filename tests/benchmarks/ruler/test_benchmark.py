import itertools
import re

import pytest

from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder

NEEDLES = [task for task in Ruler.subsets() if task.startswith("niah")]
NUMBERS, NAMES = ("1234567", "7654321"), ("ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY")


def test_subset_null_runs_all_available_tasks_in_order(tiny):
    made = Ruler(context_tokens=1800, samples=1).examples(tiny.prompts, seed=0)
    assert [item.task for item in made] == list(Ruler().available_subsets())


def test_chosen_subsets_run_once_in_the_order_of_the_benchmark(tiny):
    chosen = ["niah_single_2", "niah_single_1", "niah_single_2"]
    made = Ruler(subset=chosen, context_tokens=400, samples=1).examples(tiny.prompts, seed=0)
    assert [item.task for item in made] == ["niah_single_1", "niah_single_2"]


def test_more_context_than_the_model_takes_is_an_error_that_names_both(tiny):
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


def test_a_sample_depends_only_on_its_number_and_the_seed(tiny):
    tasks = ["niah_single_2", "niah_multikey_3", "vt", "cwe", "fwe"]

    def made(samples, seed):
        benchmark = Ruler(subset=tasks, context_tokens=2048, samples=samples)
        return {item.id: item for item in benchmark.examples(tiny.prompts, seed=seed)}

    few, many, others = made(1, seed=4), made(3, seed=4), made(1, seed=1)
    assert len(few) == len(tasks)
    assert {name: many[name] for name in few} == few
    assert len({item.references for item in many.values()}) == len(many) == 3 * len(tasks)
    assert all(others[name].context != few[name].context for name in few)


@pytest.mark.parametrize(
    ("task", "context_tokens"),
    [*itertools.product([*NEEDLES, "vt"], [1, 3, 100]), ("vt", 600)],
)
def test_too_little_context_is_an_error_that_names_both_numbers(
    task, context_tokens, tiny, prompt_tokens
):
    benchmark = Ruler(subset=task, context_tokens=context_tokens, samples=1)
    with pytest.raises(ConfigurationError) as caught:
        benchmark.examples(tiny.prompts, seed=0)
    message = re.search(
        rf"context_tokens={context_tokens} is too small.* {task} .* take (\d+) tokens",
        str(caught.value),
    )
    assert message
    shortest = int(message.group(1))
    assert shortest > context_tokens
    # Another length draws other words and numbers, which differ by a few tokens.
    enough = Ruler(subset=task, context_tokens=shortest + 50, samples=1)
    (example,) = enough.examples(tiny.prompts, seed=0)
    assert shortest - 50 < prompt_tokens(example) + example.max_new_tokens <= shortest + 50


@pytest.mark.parametrize("field", ["context_tokens", "samples"])
def test_counts_below_one_are_errors(field):
    with pytest.raises(ConfigurationError, match=rf"benchmark\.{field} must be at least 1, got 0"):
        Ruler(**{field: 0})


@pytest.mark.parametrize(
    ("task", "references", "text", "score"),
    [
        ("niah_multivalue", NUMBERS, "1234567 and 7654321", 1.0),
        ("niah_multivalue", NUMBERS, "7654321, 1234567.", 1.0),
        ("niah_multivalue", NUMBERS, "the first is 1234567", 0.5),
        ("niah_multivalue", NUMBERS, "12345677654321", 1.0),
        ("niah_multivalue", NUMBERS, "123456", 0.0),
        ("niah_multivalue", NUMBERS, "", 0.0),
        ("vt", NAMES, " ".join(NAMES).lower(), 1.0),
        ("vt", NAMES, "abcde fghij", 0.4),
        ("vt", NAMES, "", 0.0),
        # For qa, one of the references is enough.
        ("qa_1", ("a1", "b"), "it is B or c", 1.0),
        ("qa_1", ("a1", "b"), "x", 0.0),
        ("qa_1", ("a1", "b"), "", 0.0),
    ],
)
def test_the_score_is_the_share_of_references_or_any_of_them_for_qa(
    task, references, text, score, example, predict
):
    asked = [example(task, references=references)]
    (found,) = Ruler().score(asked, predict(asked, lambda example: text))
    assert found.score == score


def test_without_the_chat_template_a_prompt_is_as_long_as_the_context_allows(tiny, prompt_tokens):
    lengths = {}
    for template in (None, False):
        (example,) = Ruler(
            context_tokens=700, samples=1, subset="niah_single_1", chat_template=template
        ).examples(tiny.prompts, seed=0)
        assert example.chat_template == (template is None)
        lengths[template] = (prompt_tokens(example) + 128, len(example.context))
    assert 640 < lengths[None][0] <= 700
    assert 640 < lengths[False][0] <= 700
    assert lengths[False][1] >= lengths[None][1]
