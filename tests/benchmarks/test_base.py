"""A benchmark that implements only what BaseBenchmark requires."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.perplexity import Perplexity
from sah.benchmarks.sampling import repeat_examples
from sah.benchmarks.scorers import contained_share, exact_match
from sah.benchmarks.scoring import Task
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder
from sah.types import Benchmark, Example


@dataclass(frozen=True, kw_only=True)
class Smallest(BaseBenchmark):
    """Only a name, tasks and examples."""

    name: str = "smallest"

    tasks: ClassVar = {
        "whole": Task(max_new_tokens=3, scorer=contained_share, details={"em": exact_match}),
        "line": Task(max_new_tokens=5, scorer=exact_match, first_line=True),
    }

    def make_examples(self, tokenizer, seed):
        return [
            Example(
                id=f"{task}-{number}",
                task=task,
                context=f"{number}",
                question="?",
                references=("a", "b"),
                max_new_tokens=self.tasks[task].max_new_tokens,
            )
            for task in self.chosen()
            for number in range(3)
        ]


@dataclass(frozen=True, kw_only=True)
class Sampled(Smallest):
    samples: int = 4
    context_tokens: int


def test_has_everything_that_the_protocol_declares():
    declared = {name for name in vars(Benchmark) if not name.startswith("_")}
    declared |= {*Benchmark.__annotations__}
    assert {"title", "fetch"} < declared
    assert {name for name in declared if not hasattr(Smallest(), name)} == set()


def test_describes_itself_by_its_tasks():
    assert Smallest.subsets() == Smallest().available_subsets() == ("whole", "line")
    assert Smallest.answer_limits() == {"whole": 3, "line": 5}
    assert Smallest.score_names() == {"whole": "contained_share", "line": "exact_match"}
    assert Smallest().is_here()
    assert Smallest().hub_datasets() == ()
    assert Smallest().revision_note() == ""
    assert Smallest().fetch() == "smallest needs no download"


def test_subset_and_limit_choose_examples(tiny):
    ids = [one.id for one in Smallest(subset="line").examples(tiny.prompts, seed=0)]
    assert ids == ["line-0", "line-1", "line-2"]
    in_order = Smallest(subset=["line", "whole"]).examples(tiny.prompts, seed=0)
    assert [one.task for one in in_order] == ["whole"] * 3 + ["line"] * 3
    assert len(Smallest(limit=2).examples(tiny.prompts, seed=0)) == 2


def test_each_answer_is_scored_by_the_scorer_of_its_task(tiny, predict):
    examples = Smallest(limit=2).examples(tiny.prompts, seed=0)
    whole, line = Smallest().score(examples, predict(examples, lambda example: "\nA\nb"))
    assert (whole.score, whole.details) == (1.0, {"em": 0.0})
    assert (line.score, line.details) == (1.0, {})


def test_repeats_follow_their_question_and_are_not_counted_by_the_limit(tiny, predict):
    once = Smallest(limit=2).examples(tiny.prompts, seed=0)
    assert {example.question_id for example in once} == {None}
    assert Smallest(limit=2, repeats=1).examples(tiny.prompts, seed=0) == once
    thrice = Smallest(limit=2, repeats=3).examples(tiny.prompts, seed=0)
    assert thrice == [
        replace(example, id=f"{example.id}#{number}", question_id=example.id)
        for example in once
        for number in (1, 2, 3)
    ]
    scores = Smallest().score(thrice, predict(thrice, lambda example: "A"))
    assert [score.question_id for score in scores] == [example.question_id for example in thrice]


def test_more_repeats_begin_with_those_of_fewer(tiny):
    few, many = (Smallest(repeats=k).examples(tiny.prompts, seed=0) for k in (2, 5))
    of_many = {example.id: example for example in many}
    assert all(of_many[example.id] == example for example in few)


def test_ids_that_look_like_repeats_stay_unique(example):
    examples = [replace(example(), id=name) for name in ("a", "a#1", "a#1#1", "#1", "")]
    repeated = repeat_examples(examples, 12)
    assert len({example.id for example in repeated}) == 5 * 12


def test_has_neither_samples_nor_context_tokens_unless_it_declares_them():
    assert (Smallest().samples, Smallest().context_tokens) == (None, None)
    with pytest.raises(TypeError, match="samples"):
        Smallest(samples=3)
    assert Smallest().with_one_sample() == Smallest()
    assert Sampled(context_tokens=9).with_one_sample() == Sampled(context_tokens=9, samples=1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Smallest(subset="x"), r"subset='x': smallest has no such subset; .* whole, line"),
        (lambda: Smallest(subset="*"), "one cell of a sweep for each subset"),
        (lambda: Smallest(limit=0), r"smallest: benchmark\.limit must be at least 1, got 0"),
        (lambda: Smallest(repeats=0), r"smallest: benchmark\.repeats must be at least 1, got 0"),
        (lambda: Smallest(repeats=True), r"Smallest: repeats must be a whole number or null"),
        (lambda: Smallest(limit="3"), r"Smallest: limit must be a whole number or null, got '3'"),
        (lambda: Sampled(context_tokens=9, samples=0), r"benchmark\.samples must be at least 1"),
        (lambda: Sampled(context_tokens=0), r"benchmark\.context_tokens must be at least 1"),
        (lambda: Sampled(), "Sampled: context_tokens must be a whole number, got None"),
    ],
)
def test_a_wrong_option_is_refused_by_name(make, match):
    with pytest.raises((ConfigurationError, ValueError), match=match):
        make()


@dataclass(frozen=True, kw_only=True)
class Mixed(Smallest):
    """One task with the chat template, one without, and a continuation."""

    tasks: ClassVar = {
        "chat": Task(max_new_tokens=3, scorer=exact_match),
        "raw": Task(max_new_tokens=3, scorer=exact_match, chat_template=False),
        "text": Task(max_new_tokens=3, scorer=exact_match),
    }

    def make_examples(self, tokenizer, seed):
        examples = super().make_examples(tokenizer, seed)
        examples = [replace(one, is_continuation=one.task == "text") for one in examples]
        # A benchmark that fits its prompts measures them as they will be written.
        return [replace(one, extras={"length": tokenizer.prompt_length(one)}) for one in examples]


@pytest.mark.parametrize(
    ("chosen", "used"), [(None, {"chat"}), (True, {"chat", "raw"}), (False, set())]
)
def test_prompts_have_the_chat_template_where_task_or_option_say_so(chosen, used, tiny):
    examples = Mixed(chat_template=chosen).examples(tiny.prompts, seed=0)
    assert {example.task for example in examples if example.chat_template} == used
    for example in examples:
        prompt = tiny.prompts.encode(example)
        assert prompt.chat_template == (example.task in used)
        assert example.extras["length"] == len(prompt.context_ids) + len(prompt.question_ids)
    assert Mixed.without_chat_template() == ("raw",)


def test_a_continuation_is_not_repeated(tiny):
    assert Mixed(repeats=2, subset="chat").examples(tiny.prompts, seed=0)
    with pytest.raises(ConfigurationError, match=r"repeats=2, but the loss of a continuation"):
        Mixed(repeats=2).examples(tiny.prompts, seed=0)
    with pytest.raises(ConfigurationError, match=r"perplexity: benchmark\.repeats=4, but the loss"):
        Perplexity(repeats=4)


def test_a_model_without_a_template_gets_none_and_refuses_to_be_asked_for_one(tiny, monkeypatch):
    monkeypatch.setattr(tiny.prompts.tokenizer, "chat_template", None)
    base = PromptEncoder(tiny.prompts.tokenizer, None)
    for example in Mixed().examples(base, seed=0):
        assert not base.encode(example).chat_template
    with pytest.raises(ConfigurationError, match=r"benchmark\.chat_template=true, but .* no chat"):
        Mixed(chat_template=True).examples(base, seed=0)
