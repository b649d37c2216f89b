"""Key-value retrieval, answered by parsing the object in the prompt."""

import json
import re

import pytest

from sah.benchmarks.synthetic.key_value import KeyValue
from sah.errors import ConfigurationError


def records(example):
    """Parse the object, which must have no key twice."""
    pairs = json.loads(example.context.split("JSON data:\n")[1], object_pairs_hook=list)
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def key_of(example):
    (key,) = re.fullmatch(r'Key: "(.+)"', example.question).groups()
    return key


def made(tiny, seed=0, **settings):
    benchmark = KeyValue(**{"subset": "uuids", "context_tokens": 2000, "samples": 4, **settings})
    return benchmark.examples(tiny.prompts, seed=seed)


@pytest.mark.parametrize("task", ["uuids", "words"])
@pytest.mark.parametrize("context_tokens", [600, 5000])
def test_only_the_value_of_the_key_is_right(tiny, predict, task, context_tokens):
    benchmark = KeyValue(subset=task, context_tokens=context_tokens, samples=3, questions=2)
    for seed in range(5):
        examples = benchmark.examples(tiny.prompts, seed=seed)
        right = predict(examples, lambda example: f'"{records(example)[key_of(example)]}"')
        assert all(score.score == 1 for score in benchmark.score(examples, right))
        wrong = predict(
            examples,
            lambda example: " ".join(
                text
                for key, value in records(example).items()
                for text in ((key,) if key == key_of(example) else (key, value))
            ),
        )
        assert all(score.score == 0 for score in benchmark.score(examples, wrong))


def test_the_prompt_is_the_published_one(tiny):
    (example,) = made(tiny, context_tokens=600, samples=1)
    values = records(example)
    lines = ",\n ".join(f'"{key}": "{value}"' for key, value in values.items())
    key = key_of(example)
    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(uuid, text) for pair in values.items() for text in pair)
    assert f"{example.context}{example.question}{example.answer_prefix}" == (
        "Extract the value corresponding to the specified key in the JSON object below.\n\n"
        f'JSON data:\n{{{lines}}}\n\nKey: "{key}"\nCorresponding value:'
    )


def test_questions_on_one_context_ask_for_different_keys(tiny):
    examples = made(tiny, samples=3, questions=4)
    assert len({example.id for example in examples}) == 12
    assert len({example.context for example in examples}) == 3
    for start in (0, 4, 8):
        group = examples[start : start + 4]
        assert len({example.context for example in group}) == 1
        assert len({key_of(example) for example in group}) == 4


@pytest.mark.parametrize("task", ["uuids", "words"])
def test_less_than_two_records_of_the_budget_are_left(tiny, task):
    for context_tokens in (1000, 3000):
        examples = made(tiny, subset=task, context_tokens=context_tokens, questions=3)
        record = max(
            len(tiny.prompts.tokenizer(f' "{key}": "{value}",\n').input_ids)
            for key, value in records(examples[0]).items()
        )
        longest = max(map(tiny.prompts.prompt_length, examples)) + 100
        assert context_tokens - 2 * record < longest <= context_tokens


@pytest.mark.parametrize("questions", [1, 4])
def test_the_depths_spread_evenly_over_the_samples(tiny, questions):
    examples = made(tiny, context_tokens=4000, samples=16 // questions, questions=questions)
    places = []
    for example in examples:
        keys = list(records(example))
        places.append(keys.index(key_of(example)) / len(keys))
        (needle,) = example.metadata["needles"]
        assert needle["answer"] == example.references[0]
        assert needle["depth"] == pytest.approx(places[-1], abs=0.1)
    for octant in range(8):
        assert any(octant / 8 <= place < (octant + 1) / 8 for place in places)


def test_a_sample_depends_only_on_its_number_and_the_seed(tiny):
    few, many = made(tiny, samples=2, questions=2), made(tiny, samples=5, questions=2)
    assert many[: len(few)] == few


def test_a_longer_context_keeps_question_and_answer(tiny):
    short, long = made(tiny, context_tokens=900), made(tiny, context_tokens=3000)
    assert [(item.question, item.references) for item in short] == [
        (item.question, item.references) for item in long
    ]
    assert all(len(b.context) > len(a.context) for a, b in zip(short, long, strict=True))


def test_too_little_context_for_the_questions_is_refused(tiny):
    with pytest.raises(ConfigurationError, match=r"context_tokens=1000 is too small.*uuids"):
        made(tiny, context_tokens=1000, questions=20)


def test_less_than_one_question_is_refused():
    with pytest.raises(ConfigurationError, match=r"benchmark\.questions must be at least 1, got 0"):
        KeyValue(questions=0)
