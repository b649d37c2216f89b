"""The examples of a prompt tell the label of its question, and each request has one intent."""

import math
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from sah.benchmarks.synthetic import many_shot
from sah.benchmarks.synthetic.intents import ACTIONS, INTENTS, OBJECTS
from sah.benchmarks.synthetic.many_shot import ManyShot
from sah.errors import ConfigurationError

COUNTS = {"20_labels": 20, "50_labels": 50, "100_labels": 100}


def shots_of(example):
    return re.findall(r"^request: (.+)\nlabel: (\w+)$", example.context, re.MULTILINE)


def query_of(example):
    return re.fullmatch(r"request: (.+)\n", example.question)[1]


WORDINGS = [
    (wording.format(name), (action, item))
    for action, wordings in ACTIONS.items()
    for item, names in OBJECTS.items()
    for wording in wordings
    for name in names
]


@cache
def intents_of(text):
    """Return the intents with one of whose wordings the request can be made."""
    return sorted({intent for wording, intent in WORDINGS if wording in text})


def nearest(example):
    """Return the label whose examples share the rarest words with the question."""
    shots = [(set(re.findall(r"[a-z]+", text.lower())), label) for text, label in shots_of(example)]
    frequency = Counter(word for words, _ in shots for word in words)
    asked = set(re.findall(r"[a-z]+", query_of(example).lower()))
    similarity = defaultdict(list)
    for words, label in shots:
        similarity[label].append(
            sum(math.log(len(shots) / frequency[word]) for word in words & asked)
        )
    return max(similarity, key=lambda label: max(similarity[label]))


@pytest.fixture(scope="module")
def examples(samples):
    return [
        *samples(ManyShot, "20_labels", 6000, range(1), samples=20),
        *samples(ManyShot, "20_labels", 3000, range(1), samples=5, labels="names"),
        *samples(ManyShot, "50_labels", 6000, range(1), samples=2, questions=1),
        *samples(ManyShot, "100_labels", 8000, range(1), samples=2),
    ]


def test_the_examples_of_the_same_intent_have_the_label_that_scores_1(examples):
    for example in examples:
        (asked,) = intents_of(query_of(example))
        labels = {label for text, label in shots_of(example) if intents_of(text) == [asked]}
        assert labels == set(example.references)
        (answer,) = labels
        task = ManyShot.tasks[example.task]
        assert task.score(example, f" {answer.upper()}\nrequest: more\nlabel: 1").score == 1
        others = {label for _, label in shots_of(example)} - labels
        assert not any(task.score(example, other).score for other in others)


def test_every_label_has_an_example_and_none_has_two_more_than_another(examples):
    for example in examples:
        shots = shots_of(example)
        counts = Counter(label for _, label in shots)
        assert len(counts) == COUNTS[example.task]
        assert max(counts.values()) - min(counts.values()) <= 1
        assert example.metadata["examples"] == len(shots)
        intents = {label: intents_of(text) for text, label in shots}
        assert all(intents_of(text) == intents[label] for text, label in shots)
        assert example.context.endswith("\n")


def test_the_question_and_all_requests_are_different(examples):
    for example in examples:
        texts = [text for text, _ in shots_of(example)]
        assert len({query_of(example), *texts}) == len(texts) + 1


def test_the_nearest_example_has_the_right_label_far_more_often_than_by_chance(examples):
    found = [
        nearest(example) in example.references
        for example in examples
        if example.task == "20_labels"
    ]
    assert sum(found) / len(found) > 0.3  # by chance: 1 / 20


def test_every_wording_has_one_intent():
    assert all(intents_of(f"I want to {wording}.") == [intent] for wording, intent in WORDINGS)
    assert len(INTENTS) == len(set(INTENTS)) == 100


def test_questions_of_one_context_share_it(samples):
    made = samples(ManyShot, "20_labels", 2000, range(1), samples=7, questions=3)
    contexts = [example.context for example in made]
    assert contexts[0] == contexts[1] == contexts[2] != contexts[3]
    assert contexts[3] == contexts[4] == contexts[5] != contexts[6]
    assert len({query_of(example) for example in made}) == 7


def test_the_examples_of_a_context_are_drawn_once(samples, monkeypatch):
    drawn, rounds = [], many_shot._rounds
    monkeypatch.setattr(many_shot, "_rounds", lambda *given: drawn.append(given) or rounds(*given))
    assert len(samples(ManyShot, "20_labels", 2000, range(1), samples=7, questions=3)) == 7
    assert len(drawn) == 3


def test_all_questions_fit_and_the_longest_fills_the_context(samples, unlimited):
    made = samples(ManyShot, "20_labels", 2500, range(1), samples=5)
    lengths = [unlimited.prompt_length(example) + example.max_new_tokens for example in made]
    assert 2400 < max(lengths) <= 2500


def test_a_longer_context_keeps_examples_and_questions(samples):
    short, long = (samples(ManyShot, "20_labels", length, range(1)) for length in (2000, 4000))
    for one, other in zip(short, long, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert other.context.startswith(one.context)


def test_names_say_the_intent_and_codes_change_with_the_context(samples):
    named = samples(ManyShot, "20_labels", 2000, range(1), labels="names")
    assert all(
        "_".join(intents_of(text)[0]) == label
        for example in named
        for text, label in shots_of(example)
    )
    one, other = samples(ManyShot, "100_labels", 8000, range(1), samples=2, questions=1)
    codes = [
        {intents_of(text)[0]: label for text, label in shots_of(example)}
        for example in (one, other)
    ]
    assert all(re.fullmatch(r"[1-9]\d\d", code) for code in codes[0].values())
    assert sum(codes[0][intent] == codes[1][intent] for intent in INTENTS) < 10


def test_too_little_context_for_one_example_of_each_label_is_refused(unlimited):
    with pytest.raises(ConfigurationError, match="=2000 is too small: the shortest 100_labels"):
        ManyShot(subset="100_labels", context_tokens=2000).examples(unlimited, seed=0)


@pytest.mark.parametrize(("option", "value"), [("questions", 0), ("labels", "numbers")])
def test_unknown_options_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        ManyShot(**{option: value})
