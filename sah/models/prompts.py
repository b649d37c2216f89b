"""Encoding of examples as token ids: one template, one BOS, split at the end of the context."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sah.errors import ConfigurationError, TokenizerError
from sah.models.chat_template import SPLIT, ChatTemplate
from sah.models.generation import Generation
from sah.models.thoughts import Thinking, find_marks
from sah.types import Example

# By which KVzip makes a model repeat a context, and tokens before a later part of it.
_REPEAT = "\n\nRepeat the previous context exactly."
_REPEAT_FROM = "\n\nRepeat the part of the previous context exactly, starting with"
_LAST_TOKENS = 8
_STAND_IN = "x"

# Stands between a thought and a forced answer prefix, as after the thoughts of most models.
_AFTER_THOUGHT = "\n\n"


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """Token ids of one prompt; the model sees `context_ids` followed by `question_ids`."""

    context_ids: list[int]
    question_ids: list[int]
    """Question, the template's start of the assistant's turn, and the answer prefix."""
    after_thought_ids: list[int] = field(default_factory=list)
    """The answer prefix, if the prompt opens a thought: it follows the thought then."""
    truncated: bool = False
    """Whether the context was cut in the middle to fit the limit."""
    chat_template: bool = False
    """Whether the chat template was applied."""
    opens_thought: bool = False
    """Whether the template begins a thought at the start of the model's turn."""
    closes_thought: bool = False
    """Whether the template, or the answer prefix, keeps the model from thinking."""

    @property
    def input_hash(self) -> str:
        """Hash of all token ids in order; it does not depend on where the context ends."""
        return _hash(self.context_ids + self.question_ids + self.after_thought_ids)

    @property
    def context_hash(self) -> str:
        """Hash of the context's token ids."""
        return _hash(self.context_ids)


def _hash(ids: list[int]) -> str:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=12).hexdigest()


class RepeatedChunk(NamedTuple):
    """A part of a context, and the tokens by which the model is made to repeat it."""

    begin: int
    end: int
    ids: list[int]
    """The request, the template's start of the assistant's turn, and the tokens of the part."""


class _PromptText(NamedTuple):
    """The text of one prompt, in the parts that are tokenised one by one."""

    context: str
    question: str
    after_thought: str = ""
    opens_thought: bool = False
    closes_thought: bool = False


class PromptEncoder:
    """Encodes examples with one tokenizer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int | None,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        thinking: str | Mapping[str, str] | None = "auto",
    ) -> None:
        """Check the chat template and find the marks of thoughts.

        Args:
            tokenizer: with its chat template, if it has one.
            max_tokens: the longest sequence that the model takes; None if unknown.
            template_kwargs: options of the chat template.
            thinking: as `model.thinking`.

        Raises:
            TokenizerError: if the chat template fails, or does not read an option.
        """
        self.tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        self.template = _template(tokenizer, template_kwargs or {})
        self.marks = find_marks(tokenizer, self.template.text if self.template else "", thinking)
        """The marks around a thought; None if the model has none."""
        self._is_off = thinking is None
        self._adds_bos = self._find_adds_bos()
        # Questions about one context follow each other, so that a long context is encoded once.
        self._last_context: tuple[str | None, list[int]] = (None, [])

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.template is not None

    @property
    def options(self) -> frozenset[str]:
        """The options that the chat template reads."""
        return frozenset() if self.template is None else self.template.option_names

    def encode(self, example: Example) -> EncodedPrompt:
        """Encode an example.

        Raises:
            TokenizerError: if the chat template fails, or drops or repeats the prompt.
        """
        text = self._render(example)
        if self._last_context[0] != text.context:
            self._last_context = (text.context, self._context_ids(text.context))
        return EncodedPrompt(
            context_ids=self._last_context[1],
            question_ids=self._ids(text.question),
            after_thought_ids=self._ids(text.after_thought),
            chat_template=self._uses_template(example),
            opens_thought=text.opens_thought,
            closes_thought=text.closes_thought,
        )

    def thinking(self, prompt: EncodedPrompt, thinking_tokens: int | None) -> Thinking | None:
        """Return how the thought before an answer is recognised; None for a model without thoughts.

        Raises:
            ConfigurationError: if `thinking_tokens` is set, but the model has no end mark.
        """
        if self.marks is None:
            if thinking_tokens is not None:
                reason = (
                    "model.thinking is null"
                    if self._is_off
                    else "neither chat template nor vocabulary of this model has a known one"
                )
                raise ConfigurationError(
                    f"generation.thinking_tokens={thinking_tokens} needs the mark that ends a "
                    f"thought, but {reason}; leave it null, or name the marks with "
                    '\'model.thinking={begin: "<think>", end: "</think>"}\''
                )
            return None
        return Thinking(
            marks=self.marks,
            decode=self._decode_all,
            is_open=prompt.opens_thought,
            budget=thinking_tokens,
            end_ids=self._ids(self.marks.end),
            prefix_ids=prompt.after_thought_ids,
        )

    def room(self, example: Example, prompt: EncodedPrompt, generation: Generation) -> int:
        """Return the largest number of tokens that an answer may take, its thought included.

        Raises:
            ConfigurationError: if `generation.thinking_tokens` is set for a model without thoughts.
        """
        limit = generation.token_limit(example.max_new_tokens)
        if example.is_continuation:
            return limit
        thinking = self.thinking(prompt, generation.thinking_tokens)
        return limit if thinking is None else thinking.room(limit)

    def fit(
        self,
        examples: Sequence[Example],
        prompts: Sequence[EncodedPrompt],
        new_tokens: Sequence[int],
    ) -> list[EncodedPrompt]:
        """Cut the context of prompts that are too long, where the examples allow it.

        Args:
            examples: all about one context, so that it is cut alike for all of them.
            prompts: one for each example.
            new_tokens: the most tokens that each answer takes.

        Raises:
            ConfigurationError: if a prompt does not fit and its context may not be cut; names the
                example, its length and the limit.
        """
        limits = [example.max_tokens for example in examples] + [self.max_tokens]
        limit = min((limit for limit in limits if limit is not None), default=None)
        if limit is None:
            return list(prompts)
        after = [
            len(prompt.question_ids) + new for prompt, new in zip(prompts, new_tokens, strict=True)
        ]
        longest = after.index(max(after))
        room = limit - after[longest]
        context = prompts[longest].context_ids
        if len(context) <= room:
            return list(prompts)
        if room < 2 or not all(example.may_cut for example in examples):
            new = new_tokens[longest]
            raise ConfigurationError(
                f"example {examples[longest].id}: {len(context) + after[longest] - new} prompt "
                f"tokens and {new} new ones are more than the limit of {limit}; lower "
                "benchmark.context_tokens, or choose a model with a longer context"
            )
        # As LongBench does: instructions are at both ends.
        cut = context[: room - room // 2] + context[len(context) - room // 2 :]
        return [replace(prompt, context_ids=cut, truncated=True) for prompt in prompts]

    def of_context(self, ids: Sequence[int]) -> EncodedPrompt:
        """Return a prompt with a context that is encoded already.

        In the chat template if it begins as the template does before the user's own text.
        """
        heading = self._heading()
        in_template = bool(heading) and list(ids[: len(heading)]) == heading
        return EncodedPrompt(context_ids=list(ids), question_ids=[], chat_template=in_template)

    def repetition(self, prompt: EncodedPrompt, chunk: int) -> tuple[int, list[RepeatedChunk]]:
        """Return how KVzip makes the model repeat a context (arXiv:2505.23416, section 3.2).

        Requests as in the authors' code, and as in kvpress without the space at the end of the
        second one; without a chat template, an answer begins on a new line, as in kvpress.

        Args:
            prompt: its context.
            chunk: tokens to repeat at a time.

        Returns:
            The number of tokens of the chat template before the context, which are not repeated,
            and the chunks of the rest.
        """
        ids, first, turn = prompt.context_ids, 0, "\n"
        if prompt.chat_template:
            assert self.template is not None
            _, turn = self.template.around(_STAND_IN, "")
            first = _common(self._heading(), ids)
            if self.marks is not None:
                begin_mark, end_mark = turn.rfind(self.marks.begin), turn.rfind(self.marks.end)
                if begin_mark > end_mark:
                    turn += self.marks.end + _AFTER_THOUGHT
                elif end_mark < 0:
                    turn += self.marks.direct
        chunks, turn_ids = [], self._ids(turn)
        for begin in range(first, len(ids), chunk):
            end = min(begin + chunk, len(ids))
            request = self._ids(_REPEAT) if begin == first else self._ids(_REPEAT_FROM)
            earlier = ids[max(first, begin - _LAST_TOKENS) : begin]
            chunks.append(RepeatedChunk(begin, end, request + earlier + turn_ids + ids[begin:end]))
        return first, chunks

    def _heading(self) -> list[int]:
        """Return the tokens of the chat template before the user's own text."""
        if self.template is None:
            return []
        before, _ = self.template.around(_STAND_IN, "")
        return self._context_ids(before.removesuffix(_STAND_IN))

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False).input_ids]

    def prompt_length(self, example: Example) -> int:
        """Count the tokens of the whole prompt, chat template included."""
        text = self._render(example)
        rest = len(self._ids(text.question)) + len(self._ids(text.after_thought))
        return len(self._context_ids(text.context)) + rest

    def decode(self, ids: Sequence[int]) -> str:
        """Decode generated tokens, leaving out special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _decode_all(self, ids: Sequence[int]) -> str:
        tokenizer = self.tokenizer
        return str(
            tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _uses_template(self, example: Example) -> bool:
        return self.has_chat_template and example.chat_template and not example.is_continuation

    def _render(self, example: Example) -> _PromptText:
        for part in (example.context, example.question, example.answer_prefix):
            if SPLIT in part:
                raise TokenizerError(
                    f"example {example.id} contains U+F8FF, which marks the end of the context "
                    "while the chat template is applied; remove it from the data"
                )
        prefix = example.answer_prefix
        if self.template is None or not self._uses_template(example):
            return _PromptText(example.context, example.question + prefix)
        try:
            before, after = self.template.around(example.context, example.question)
        except TokenizerError as error:
            raise TokenizerError(f"example {example.id}: {error}") from error
        if self.marks is None:
            return _PromptText(before, after + prefix)
        # The user's own text may contain a mark.
        turn = after.removeprefix(example.question.rstrip())
        begin, end = turn.rfind(self.marks.begin), turn.rfind(self.marks.end)
        if begin > end:
            # In the thought, the prefix would not begin the answer.
            prefix = prefix.lstrip()
            after_thought = _AFTER_THOUGHT + prefix if prefix else ""
            return _PromptText(before, after, after_thought, opens_thought=True)
        if end < 0 and prefix:
            # gpt-oss begins every answer with the name of its channel.
            prefix = self.marks.direct + prefix
        return _PromptText(before, after + prefix, closes_thought=end >= 0 or bool(prefix))

    def _context_ids(self, text: str) -> list[int]:
        ids = self._ids(text)
        bos = self.tokenizer.bos_token_id
        # Many templates write BOS themselves; the tokenizer's would be a second one.
        if self._adds_bos and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _find_adds_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a").input_ids[:1] == [bos]


def _template(
    tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]
) -> ChatTemplate | None:
    """Return the chat template of a tokenizer; None if it has none.

    Raises:
        TokenizerError: for options without a template, or that it does not read.
    """
    if tokenizer.chat_template:
        return ChatTemplate(tokenizer, options)
    if options:
        raise TokenizerError(
            f"model.template_kwargs sets {', '.join(options)}, but the tokenizer has no chat "
            "template; remove it"
        )
    return None


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
