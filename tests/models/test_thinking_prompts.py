"""What a prompt says of thoughts: whether it opens one, and which settings a model takes."""

from collections.abc import Callable
from typing import Any

import pytest
from thinking_templates import CHAT, CLOSES, GPT_OSS, MENTIONS, OPENS

from sah.errors import ConfigurationError
from sah.models.generation import Generation
from sah.models.hub import HubModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import TinyModel

Make = Callable[..., Any]


# The user's message decides, as in Nemotron Nano.
BY_MESSAGE = (
    CHAT
    + "{% if '/no_think' in messages[0].content %}<think></think>{% else %}<think>\n{% endif %}"
)
# DeepSeek-V3.1 has no begin mark where it does not think.
ONLY_ENDS = CHAT + "{% if add_generation_prompt %}</think>{% endif %}"


@pytest.mark.parametrize(
    ("template", "question", "opens", "closes"),
    [
        (OPENS, "What?", True, False),
        (CLOSES, "What?", False, True),
        (ONLY_ENDS, "What?", False, True),
        (MENTIONS, "What?", False, False),
        (CHAT, "What?", False, False),
        (BY_MESSAGE, "What?", True, False),
        (BY_MESSAGE, "What? /no_think", False, True),
        # A mark in the user's own text opens and closes nothing.
        (OPENS, "What is </think>?", True, False),
        (CLOSES, "What is <think>?", False, True),
        (MENTIONS, "What is <think>?\n", False, False),
        (MENTIONS.replace("m['content']", "m['content'] | trim"), "<think>?\n", False, False),
    ],
)
def test_the_template_opens_or_closes_a_thought(
    template: str,
    question: str,
    opens: bool,
    closes: bool,
    thinker: Callable[[str], Any],
    make_example: Make,
) -> None:
    encoder = PromptEncoder(thinker(template), None)
    prompt = encoder.encode(make_example(question=question))
    thinking = encoder.thinking(prompt, None)
    # The vocabulary has the marks even if the template does not.
    if encoder.marks is not None:
        assert thinking is not None
        assert thinking.is_open == opens
    assert (prompt.opens_thought, prompt.closes_thought) == (opens, closes)
    raw = encoder.encode(make_example(question=question, chat_template=False))
    assert (raw.opens_thought, raw.closes_thought) == (False, False)


def test_a_prefix_begins_the_answer_of_a_model_that_opens_thoughts_itself(
    thinker: Callable[[str], Any], make_example: Make
) -> None:
    for template, header in ((MENTIONS, ""), (GPT_OSS, "<|channel|>final<|message|>")):
        encoder = PromptEncoder(thinker(template), None)
        prompt = encoder.encode(make_example(answer_prefix="Answer:"))
        text = encoder.tokenizer.decode(prompt.question_ids)
        assert text.endswith(f"<|assistant|>{header}Answer:")
        assert prompt.closes_thought


def test_a_model_without_marks_has_no_thoughts_and_takes_no_budget(
    make_tokenizer: Make, make_example: Make
) -> None:
    encoder = PromptEncoder(make_tokenizer(CHAT), None)
    example = make_example()
    prompt = encoder.encode(example)
    assert encoder.thinking(prompt, None) is None
    with pytest.raises(ConfigurationError, match=r"thinking_tokens=5 .* neither .* nor vocab"):
        encoder.room(example, prompt, Generation(thinking_tokens=5))
    off = PromptEncoder(make_tokenizer(OPENS), None, thinking=None)
    with pytest.raises(ConfigurationError, match=r"thinking_tokens=5 .* model\.thinking is null"):
        off.room(example, off.encode(example), Generation(thinking_tokens=5))
    # Nothing is generated for a continuation.
    continuation = make_example(is_continuation=True)
    prompt = encoder.encode(continuation)
    assert encoder.room(continuation, prompt, Generation(thinking_tokens=5)) == 8


@pytest.mark.parametrize(
    "value", ["on", "", {"begin": "<a>"}, {"begin": "", "end": "</a>"}, {"end": "a", "stop": "b"}]
)
def test_other_values_of_thinking_are_refused(value: Any) -> None:
    for make in (TinyModel, lambda **given: HubModel(name="mine", name_or_path="org/x", **given)):
        with pytest.raises(ValueError, match=r"model\.thinking must be auto, null, or the marks"):
            make(thinking=value)
