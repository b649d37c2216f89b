"""The chat template of a tokenizer: its options, its own errors, and a bound on its loops."""

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from transformers import PreTrainedTokenizerBase

from sah.errors import TokenizerError

# Marks the end of the context while the template is applied: a private-use character that texts
# do not contain and templates leave alone.
SPLIT = "\uf8ff"

# Some templates write today's date into the prompt, so that the same experiment would get another
# prompt tomorrow. Llama's take the date as an argument; others (gpt-oss, Granite) call a function.
_DATE = "26 Jul 2024"
_NOW = (
    "{% macro strftime_now(format) %}"
    "{{ format.replace('%d', '26').replace('%m', '07').replace('%b', 'Jul')"
    ".replace('%B', 'July').replace('%Y', '2024') }}"
    "{% endmacro %}\n"
)

# Common templates execute a few hundred of their lines for one message.
_MOST_LINES = 1_000_000

# What a template may raise: its own errors, and those of the Python that its expressions run.
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)

_WAY_OUT = (
    "set +model.tokenizer_kwargs.chat_template=TEMPLATE to another one, or to '' for prompts "
    "without a template"
)


class ChatTemplate:
    """Renders the messages of a prompt with fixed options and a fixed date.

    Raises:
        TokenizerError: at construction, if the template fails on a plain message from a user, or
            does not read an option.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> None:
        self._tokenizer: Any = tokenizer
        self._options = dict(options)
        try:
            self.text = str(self._tokenizer.get_chat_template())
        except ValueError as error:
            raise TokenizerError(
                "the tokenizer has several chat templates "
                f"({', '.join(sorted(self._tokenizer.chat_template))}) and none is called "
                f"'default'; {_WAY_OUT}"
            ) from error
        self._dated = _NOW + self.text if "strftime_now" in self.text else self.text
        self.option_names = self._names() - _set_here(self._tokenizer)
        """The names that the template reads and `model.template_kwargs` may set."""
        _check_options(self._options, self.option_names, _set_here(self._tokenizer))
        self.around("Hello.", "")

    def around(self, context: str, question: str) -> tuple[str, str]:
        """Render a user's message; return the text up to the end of the context, and the rest.

        Raises:
            TokenizerError: if the template fails, or drops or repeats the message.
        """
        message = {"role": "user", "content": context + SPLIT + question}
        before, *after = self.render([message], add_generation_prompt=True).split(SPLIT)
        if len(after) != 1:
            raise TokenizerError(
                f"the chat template renders the user's message {len(after)} times instead of once; "
                f"{_WAY_OUT}"
            )
        return before, after[0]

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """Render messages.

        Raises:
            TokenizerError: if the template fails, in its own words.
        """
        try:
            with _bounded_lines():
                text = self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self._dated,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    date_string=_DATE,
                    **self._options,
                )
        except _FAILURES as error:
            raise TokenizerError(f"the chat template fails: {_words(error)}; {_WAY_OUT}") from error
        return str(text)

    def _names(self) -> frozenset[str]:
        """Return the names that the template reads and does not define itself."""
        environment = Environment(
            extensions=["jinja2.ext.loopcontrols", _Generation], autoescape=False
        )
        try:
            return frozenset(meta.find_undeclared_variables(environment.parse(self.text)))
        except TemplateError as error:
            raise TokenizerError(
                f"the chat template cannot be parsed: {_words(error)}; {_WAY_OUT}"
            ) from error


def _set_here(tokenizer: Any) -> frozenset[str]:
    """Return the names that a template gets from SAH, transformers or the tokenizer."""
    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    functions = ("raise_exception", "strftime_now")
    names = ("messages", "date_string", *functions, *parameters, *tokenizer.special_tokens_map)
    return frozenset(names)


def _check_options(
    options: Mapping[str, Any], known: frozenset[str], set_here: frozenset[str]
) -> None:
    for name, value in options.items():
        if value is None:
            # To the template it is a value, but to the fingerprint of an experiment it is none.
            raise TokenizerError(f"model.template_kwargs.{name} is null; remove it, or set a value")
        if name in set_here:
            raise TokenizerError(
                f"model.template_kwargs.{name} cannot be set: prompts are one message from a user, "
                f"and {name} is given by the tokenizer or fixed for all prompts; remove it"
            )
        if name not in known:
            reads = ", ".join(sorted(known)) or "no option"
            raise TokenizerError(
                f"model.template_kwargs.{name} has no effect: the chat template does not read it "
                f"(it reads {reads}); remove it"
            )


class _Generation(Extension):
    """Parses the block {% generation %} of transformers, which marks the assistant's text."""

    tags = {"generation"}  # noqa: RUF012 (an instance variable in the base class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TooManyLinesError(RuntimeError):
    """A template executed more lines than any prompt needs."""


@contextmanager
def _bounded_lines() -> Iterator[None]:
    """Stop a template that does not end.

    The sandbox of transformers limits `range`, but neither nested loops nor recursive macros.
    Lines are counted instead of seconds, so that a crowded machine changes nothing.
    """
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines > _MOST_LINES:
            raise _TooManyLinesError(f"it does not end within {_MOST_LINES:,} executed lines")
        return count

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return count if frame.f_code.co_filename == "<template>" else None

    tracing = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(tracing)


def _words(error: BaseException) -> str:
    """Return the first line of an error; its line in the template, if it is a syntax error."""
    lines = str(error).strip().splitlines()
    words = lines[0].rstrip(".") if lines else type(error).__name__
    return f"{words} (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else words
