"""Thoughts are told apart from answers, and end where a budget says so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from thinking_templates import CHAT, CLOSES, GPT_OSS, MENTIONS, OPENS
from torch import Tensor

from sah.models.decoding import Answer, AnswerInProgress
from sah.models.generation import Generation
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.types import Example

Make = Callable[..., Any]

EOS = 1


class Script:
    """Chooses the tokens of a text, then EOS."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = [*ids, EOS]
        self.chosen = 0

    def choose(self, logits: Tensor) -> int:
        self.chosen += 1
        return self.ids[self.chosen - 1]


def ids(encoder: PromptEncoder, text: str) -> list[int]:
    return list(encoder.tokenizer(text, add_special_tokens=False).input_ids)


def written(encoder: PromptEncoder) -> EncodedPrompt:
    example = Example(
        id="x", task="t", context="The sky.", question="What?", references=(), max_new_tokens=8
    )
    return encoder.encode(example)


def answered(
    encoder: PromptEncoder,
    text: str,
    *,
    limit: int = 100,
    budget: int | None = None,
    prompt: EncodedPrompt | None = None,
) -> tuple[Answer, Script]:
    """Decode an answer of which the model chooses the tokens of a text."""
    prompt = prompt or written(encoder)
    script = Script(ids(encoder, text))
    answer = AnswerInProgress(
        script,
        limit=limit,
        eos_token_ids=frozenset({EOS}),
        thinking=encoder.thinking(prompt, budget),
    )
    while answer.advance(torch.zeros(1, 400)):
        pass
    return answer.answer(0.0), script


def scored(encoder: PromptEncoder, answer: Answer) -> str:
    rest = "" if answer.thought is None else answer.thought.rest
    return (rest + encoder.decode(answer.answer_ids)).strip()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (MENTIONS, "<think>\nThe sky is blue.\n</think>\n\nIt is blue."),
        (MENTIONS, "\n <think>The sky is blue.</think>It is blue."),
        (OPENS, "The sky is blue.\n</think>\n\nIt is blue."),
        (OPENS, "The sky is blue.</think>It is blue."),
    ],
    ids=["model_opens", "after_white_space", "template_opens", "no_white_space"],
)
def test_what_follows_the_end_mark_is_the_answer(
    template: str, text: str, thinker: Callable[[str], Any]
) -> None:
    encoder = PromptEncoder(thinker(template), None)
    answer, _ = answered(encoder, text)
    assert answer.thought is not None
    assert answer.thought.is_finished
    assert answer.thought.text == "The sky is blue."
    assert scored(encoder, answer) == "It is blue."
    assert answer.token_ids == ids(encoder, text)
    assert answer.finish_reason == "eos"


def test_the_tokens_of_a_thought_are_those_between_its_marks(
    thinker: Callable[[str], Any],
) -> None:
    encoder = PromptEncoder(thinker(MENTIONS), None)
    thought = ids(encoder, "The sky is blue.")
    for begin, end in (("<think>", "</think>"), ("\n<think>", "</think>\n")):
        answer, _ = answered(encoder, f"{begin}The sky is blue.{end}Yes.")
        assert answer.thought is not None
        assert answer.thought.tokens == len(thought)


@pytest.mark.parametrize(
    "text",
    [
        "It is blue.",
        "<thin air",
        "< 3",
        "I say <think>nothing</think>.",
        "</think>",
        " " * 60 + "<think>late",
        "",
    ],
)
@pytest.mark.parametrize("budget", [None, 5])
def test_an_answer_that_does_not_begin_with_the_mark_has_no_thought(
    text: str, budget: int | None, thinker: Callable[[str], Any]
) -> None:
    encoder = PromptEncoder(thinker(MENTIONS), None)
    answer, script = answered(encoder, text, budget=budget)
    assert answer.thought is None
    assert answer.answer_ids == answer.token_ids == ids(encoder, text)
    assert script.chosen == len(answer.token_ids) + 1


@pytest.mark.parametrize("limit", range(1, 9))
def test_without_thoughts_a_limit_counts_the_same_tokens(
    limit: int, thinker: Callable[[str], Any]
) -> None:
    encoder = PromptEncoder(thinker(MENTIONS), None)
    text = "<thin air and more of it"
    for budget in (None, 3):
        answer, _ = answered(encoder, text, limit=limit, budget=budget)
        assert answer.answer_ids == ids(encoder, text)[:limit]


@pytest.mark.parametrize("ending", ["eos", "length"])
def test_a_thought_that_does_not_end_is_an_empty_answer(
    ending: str, thinker: Callable[[str], Any]
) -> None:
    encoder = PromptEncoder(thinker(OPENS), None)
    text = "The sky is blue. </thi"
    limit = len(ids(encoder, text)) + (1 if ending == "eos" else 0)
    answer, _ = answered(encoder, text, limit=limit)
    assert answer.finish_reason == ending
    assert answer.answer_ids == []
    assert answer.thought is not None
    assert not answer.thought.is_finished
    assert answer.thought.text == text
    assert answer.thought.tokens == len(answer.token_ids) == len(ids(encoder, text))


def test_without_a_budget_thought_and_answer_share_the_limit(
    thinker: Callable[[str], Any],
) -> None:
    encoder = PromptEncoder(thinker(OPENS), None)
    text = "The sky is blue.</think>It is blue and the grass is green."
    limit = len(ids(encoder, "The sky is blue.</think>It"))
    answer, _ = answered(encoder, text, limit=limit)
    assert len(answer.token_ids) == limit
    assert scored(encoder, answer) == "It"


@pytest.mark.parametrize("budget", [0, 1, 4])
@pytest.mark.parametrize("template", [OPENS, MENTIONS], ids=["template_opens", "model_opens"])
def test_at_the_budget_the_end_mark_is_forced_and_the_answer_has_its_own_limit(
    template: str, budget: int, thinker: Callable[[str], Any]
) -> None:
    encoder = PromptEncoder(thinker(template), None)
    begin = ids(encoder, "<think>") if template == MENTIONS else []
    thought = ids(encoder, "The sky is blue")[:budget]
    answer_ids = ids(encoder, "It is blue.")
    end = ids(encoder, "</think>")
    script = Script([*begin, *thought, *answer_ids])
    thinking = encoder.thinking(written(encoder), budget)
    assert thinking is not None
    for limit in (1, 3, 100):
        script.chosen = 0
        progress = AnswerInProgress(
            script, limit=limit, eos_token_ids=frozenset({EOS}), thinking=thinking
        )
        while progress.advance(torch.zeros(1, 400)):
            pass
        answer = progress.answer(0.0)
        assert answer.answer_ids == answer_ids[:limit]
        assert answer.token_ids == [*begin, *thought, *end, *answer_ids[:limit]]
        assert answer.thought is not None
        assert answer.thought.is_finished
        assert answer.thought.tokens == budget
        assert answer.thought.text == encoder.decode(thought).strip()
        assert len(answer.token_ids) <= thinking.room(limit)


def test_a_thought_shorter_than_its_budget_is_left_alone(thinker: Callable[[str], Any]) -> None:
    encoder = PromptEncoder(thinker(OPENS), None)
    text = "Blue.</think>It is blue."
    (bounded, _), (free, _) = (answered(encoder, text, budget=budget) for budget in (20, None))
    assert replace(bounded, seconds=0.0) == replace(free, seconds=0.0)


def test_a_prefix_follows_the_thought_that_the_template_opens(
    thinker: Callable[[str], Any], make_example: Make
) -> None:
    encoder = PromptEncoder(thinker(OPENS), None)
    prompt = encoder.encode(make_example(answer_prefix=" The answer is"))
    assert encoder.tokenizer.decode(prompt.question_ids).endswith("<|assistant|><think>\n")
    for budget, text in (
        (None, "Sky.</think>"),
        (3, encoder.decode(ids(encoder, "The sky is")[:3])),
    ):
        answer, _ = answered(encoder, f"{text} blue.", budget=budget, prompt=prompt)
        written = encoder.tokenizer.decode(answer.token_ids)
        assert written == f"{text.removesuffix('</think>')}</think>\n\nThe answer is blue."
        assert scored(encoder, answer) == "blue."
    closed = PromptEncoder(thinker(CLOSES), None)
    prompt = closed.encode(make_example(answer_prefix=" The answer is"))
    assert closed.tokenizer.decode(prompt.question_ids).endswith("</think>\n\n The answer is")
    assert prompt.after_thought_ids == []


def test_the_prefix_after_a_thought_counts_as_part_of_the_prompt(
    thinker: Callable[[str], Any], make_example: Make
) -> None:
    encoder = PromptEncoder(thinker(OPENS), None)
    hashes = set()
    for prefix in ("", " Answer:", " Answers:"):
        example = make_example(answer_prefix=prefix)
        prompt = encoder.encode(example)
        hashes.add(prompt.input_hash)
        assert encoder.prompt_length(example) == sum(
            map(len, (prompt.context_ids, prompt.question_ids, prompt.after_thought_ids))
        )
        generation = Generation(max_new_tokens=5)
        assert encoder.room(example, prompt, generation) == 5 + len(prompt.after_thought_ids)
        thinking = Generation(max_new_tokens=5, thinking_tokens=7)
        end = len(ids(encoder, "</think>"))
        room = 5 + 7 + end + len(prompt.after_thought_ids)
        assert encoder.room(example, prompt, thinking) == room
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        (
            "<|channel|>analysis<|message|>The sky<|end|><|start|>assistant<|channel|>analysis"
            "<|message|>is blue.<|end|><|start|>assistant<|channel|>final<|message|>Blue.",
            "The sky<|end|><|start|>assistant<|channel|>analysis<|message|>is blue.",
        ),
        ("<|channel|>final<|message|>Blue.", None),
    ],
    ids=["thought", "direct"],
)
def test_the_channels_of_gpt_oss_are_a_thought_and_an_answer(
    text: str, thought: str | None, thinker: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PromptEncoder(thinker(GPT_OSS), None)
    script = Script(ids(encoder, text))
    # The end of a message is not the end of the answer.
    answer = AnswerInProgress(
        script,
        limit=200,
        eos_token_ids=frozenset({0}),
        thinking=encoder.thinking(written(encoder), None),
    )
    script.ids[-1] = 0
    while answer.advance(torch.zeros(1, 400)):
        pass
    given = answer.answer(0.0)
    assert scored(encoder, given) == "Blue."
    assert (given.thought and given.thought.text) == thought


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought", "<channel|>"),
    ],
)
def test_known_marks_are_found_in_the_template_or_the_vocabulary(
    begin: str, end: str, make_tokenizer: Make
) -> None:
    in_template = PromptEncoder(make_tokenizer(CHAT + f"{{# {end} #}}"), None)
    tokenizer = make_tokenizer(CHAT)
    tokenizer.add_tokens([begin, end])
    for encoder in (in_template, PromptEncoder(tokenizer, None)):
        assert encoder.marks is not None
        assert (encoder.marks.begin, encoder.marks.end) == (begin, end)
        text = f"{begin} The sky {end} Blue."
        answer, _ = answered(encoder, text)
        assert scored(encoder, answer) == "Blue."


def test_marks_can_be_named_or_switched_off(thinker: Callable[[str], Any]) -> None:
    tokenizer = thinker(OPENS)
    text = "The sky</think>{{so}}Blue."
    named = PromptEncoder(tokenizer, None, thinking={"begin": "{{hm}}", "end": "{{so}}"})
    assert not written(named).opens_thought
    answer, _ = answered(named, "{{hm}}" + text)
    assert scored(named, answer) == "Blue."
    off = PromptEncoder(tokenizer, None, thinking=None)
    assert (off.marks, written(off).opens_thought) == (None, False)
    answer, _ = answered(off, text)
    assert (answer.thought, scored(off, answer)) == (None, text)
    assert written(PromptEncoder(tokenizer, None)).opens_thought
