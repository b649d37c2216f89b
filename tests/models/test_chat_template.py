"""The options of a chat template, and templates that fail in their own words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sah.errors import TokenizerError
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder

Make = Callable[..., Any]

PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Reads two options: one that it may lack, one with a default of its own.
WITH_OPTIONS = (
    "{% if style is not defined %}{% set style = 'short' %}{% endif %}"
    + PLAIN
    + "{% if enable_thinking is defined and enable_thinking is false %}Quick, {% endif %}"
    + "{{ style }}"
)

FAILING = {
    "raise_exception": (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ raise_exception('Conversations start with a system message.') }}{% endif %}" + PLAIN,
        "fails: Conversations start with a system message;",
    ),
    "syntax": (PLAIN + "\n{% for m in messages %}", r"cannot be parsed: Unexpected end .*line 2"),
    "unknown_filter": (PLAIN + "{{ 'a' | shout }}", "cannot be parsed: No filter named 'shout'"),
    "undefined_variable": (PLAIN + "{{ system.content }}", "fails: 'system' is undefined"),
    "undefined_attribute": (
        "{% for m in messages %}{{ m.thoughts.text }}{% endfor %}",
        "fails: 'dict object' has no attribute 'thoughts'",
    ),
    "python_error": (PLAIN + "{{ 'a' + 1 }}", "fails: can only concatenate str"),
    "division": (PLAIN + "{{ 1 / 0 }}", "fails: division by zero"),
    "large_range": (PLAIN + "{% for i in range(10 ** 12) %}{% endfor %}", "fails: Range too big"),
    "nested_loops": (
        PLAIN + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "fails: it does not end within 1,000,000 executed lines",
    ),
    "recursion": (
        "{% macro f(n) %}{{ f(n - 1) }}{% endmacro %}{{ f(1) }}" + PLAIN,
        "fails: maximum recursion depth exceeded",
    ),
    "branching_recursion": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(60) }}" + PLAIN,
        "fails: it does not end within 1,000,000 executed lines",
    ),
    "several_without_default": (
        {"rag": PLAIN, "tool_use": PLAIN},
        r"several chat templates \(rag, tool_use\) and none is called 'default'",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_an_error_in_its_own_words(
    name: str, make_tokenizer: Make
) -> None:
    template, message = FAILING[name]
    with pytest.raises(TokenizerError, match=message) as caught:
        PromptEncoder(make_tokenizer(template), None)
    assert "set +model.tokenizer_kwargs.chat_template=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_that_fails_on_one_prompt_names_the_example(
    make_tokenizer: Make, make_example: Make
) -> None:
    template = (
        PLAIN + "{% if '<' in messages[0].content %}{{ raise_exception('No tags.') }}{% endif %}"
    )
    encoder = PromptEncoder(make_tokenizer(template), None)
    encoder.encode(make_example())
    with pytest.raises(
        TokenizerError, match=r"example number 7: the chat template fails: No tags;"
    ):
        encoder.encode(make_example("1 < 2", id="number 7"))


def test_the_default_of_several_templates_is_used(make_tokenizer: Make, make_example: Make) -> None:
    several = {"default": PLAIN, "rag": WITH_OPTIONS}
    (one, other) = (
        PromptEncoder(make_tokenizer(template), None).encode(make_example())
        for template in (several, PLAIN)
    )
    assert one == other


def test_bounding_a_template_leaves_tracing_as_it_was(make_tokenizer: Make) -> None:
    import sys

    def trace(*_: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(TokenizerError):
            PromptEncoder(make_tokenizer(FAILING["nested_loops"][0]), None)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({}, "<|assistant|>short"),
        ({"enable_thinking": False}, "<|assistant|>Quick, short"),
        ({"enable_thinking": True, "style": "long"}, "<|assistant|>long"),
    ],
    ids=str,
)
def test_template_kwargs_reach_the_template(
    options: dict[str, Any], ending: str, make_tokenizer: Make, make_example: Make
) -> None:
    tokenizer = make_tokenizer(WITH_OPTIONS)
    encoder = PromptEncoder(tokenizer, None, template_kwargs=options)
    prompt = encoder.encode(make_example())
    assert tokenizer.decode(prompt.question_ids) == f"What is the answer?<|end|>{ending}"
    assert encoder.options == {"enable_thinking", "style"}


@pytest.mark.parametrize(
    ("template", "option", "message"),
    [
        (PLAIN, "enable_thinking", r"does not read it \(it reads no option\)"),
        (WITH_OPTIONS, "enable_thinkng", r"does not read it \(it reads enable_thinking, style\)"),
        # Overwritten before it is read.
        ("{% set a = 1 %}" + PLAIN + "{{ a }}", "a", "does not read it"),
        (PLAIN, "messages", "cannot be set"),
        (PLAIN, "add_generation_prompt", "cannot be set"),
        (PLAIN + "{{ date_string }}", "date_string", "cannot be set"),
        (PLAIN + "{{ bos_token }}", "bos_token", "cannot be set"),
        (PLAIN, "tokenize", "cannot be set"),
        (PLAIN, "tools", "cannot be set"),
        (PLAIN, "chat_template", "cannot be set"),
    ],
)
def test_an_option_that_cannot_have_an_effect_is_refused_by_name(
    template: str, option: str, message: str, make_tokenizer: Make
) -> None:
    with pytest.raises(TokenizerError, match=rf"model\.template_kwargs\.{option} .*{message}"):
        PromptEncoder(make_tokenizer(template), None, template_kwargs={option: False})


def test_an_option_that_is_null_is_refused(make_tokenizer: Make) -> None:
    # Its fingerprint would be that of no option, but the template could tell them apart.
    with pytest.raises(TokenizerError, match=r"model\.template_kwargs\.style is null"):
        PromptEncoder(make_tokenizer(WITH_OPTIONS), None, template_kwargs={"style": None})


def test_options_without_a_template_are_refused(make_tokenizer: Make) -> None:
    with pytest.raises(TokenizerError, match=r"sets enable_thinking, but .* no chat template"):
        PromptEncoder(make_tokenizer(None), None, template_kwargs={"enable_thinking": False})


def test_text_without_a_template_does_not_depend_on_options(
    make_tokenizer: Make, make_example: Make
) -> None:
    tokenizer = make_tokenizer(WITH_OPTIONS)
    encoders = [
        PromptEncoder(tokenizer, None, template_kwargs=options)
        for options in ({}, {"style": "long"})
    ]
    for example in (make_example(is_continuation=True), make_example(chat_template=False)):
        one, other = (encoder.encode(example) for encoder in encoders)
        assert one == other
        assert not one.chat_template
        assert tokenizer.decode(one.context_ids) == "The grass is green. "


@pytest.fixture
def folder(tiny: LanguageModel, make_tokenizer: Make, tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint without weights, whose tokenizer has a template."""

    def write(template: Any) -> Path:
        tiny.model.config.save_pretrained(tmp_path)
        make_tokenizer(template).save_pretrained(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("template", "options"),
    [
        (FAILING["raise_exception"][0], {}),
        (PLAIN, {"template_kwargs": {"enable_thinking": False}}),
    ],
    ids=["failing", "unread_option"],
)
def test_a_checkpoint_is_refused_before_its_weights_are_loaded(
    template: str, options: dict[str, Any], folder: Callable[..., Path]
) -> None:
    model = HubModel(name="mine", name_or_path=str(folder(template)), **options)
    for load in (model.prompts, model.load):
        with pytest.raises(TokenizerError, match="chat template"):
            load()


def test_an_empty_template_on_the_command_line_is_none(folder: Callable[..., Path]) -> None:
    path = folder(FAILING["raise_exception"][0])
    model = HubModel(name="mine", name_or_path=str(path), tokenizer_kwargs={"chat_template": ""})
    assert not model.prompts().has_chat_template
