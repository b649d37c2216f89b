"""Encoding of examples as token ids: one template, one BOS, split at the end of the context."""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from sah.errors import ConfigurationError, TokenizerError
from sah.types import Example

# Marks the end of the context while the chat template is applied: a private-use character that
# texts do not contain and templates leave alone.
_SPLIT = "\uf8ff"

# Some templates write today's date into the prompt, so that the same experiment would get another
# prompt tomorrow. Llama's take the date as an argument; others (gpt-oss, Granite) call a function.
_TEMPLATE_DATE = "26 Jul 2024"
_TEMPLATE_NOW = (
    "{% macro strftime_now(format) %}"
    "{{ format.replace('%d', '26').replace('%m', '07').replace('%b', 'Jul')"
    ".replace('%B', 'July').replace('%Y', '2024') }}"
    "{% endmacro %}\n"
)


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """Token ids of one prompt; the model sees `context_ids` followed by `question_ids`."""

    context_ids: list[int]
    question_ids: list[int]
    """Question, the template's start of the assistant's turn, and the answer prefix."""
    truncated: bool = False
    """Whether the context was cut in the middle to fit the limit."""

    @property
    def input_hash(self) -> str:
        """Hash of all token ids in order; it does not depend on where the context ends."""
        return _hash(self.context_ids + self.question_ids)

    @property
    def context_hash(self) -> str:
        """Hash of the context's token ids."""
        return _hash(self.context_ids)


def _hash(ids: list[int]) -> str:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=12).hexdigest()


class PromptEncoder:
    """Encodes examples with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int | None) -> None:
        self.tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        self._adds_bos = self._find_adds_bos()
        # Questions about one context follow each other, so that a long context is encoded once.
        self._last_context: tuple[str | None, list[int]] = (None, [])

    def encode(self, example: Example) -> EncodedPrompt:
        """Encode an example.

        Raises:
            TokenizerError: if the chat template drops or repeats the prompt.
        """
        before, after = self._render(example)
        if self._last_context[0] != before:
            self._last_context = (before, self._context_ids(before))
        return EncodedPrompt(context_ids=self._last_context[1], question_ids=self._ids(after))

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
            new_tokens: the token limit of each answer.

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

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False).input_ids]

    def prompt_length(self, example: Example) -> int:
        """Count the tokens of the whole prompt, chat template included."""
        before, after = self._render(example)
        return len(self._context_ids(before)) + len(self._ids(after))

    def decode(self, ids: Sequence[int]) -> str:
        """Decode generated tokens, leaving out special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, example: Example) -> tuple[str, str]:
        """Return the text up to the end of the context, and the text after it."""
        for part in (example.context, example.question, example.answer_prefix):
            if _SPLIT in part:
                raise TokenizerError(
                    f"example {example.id} contains U+F8FF, which marks the end of the context "
                    "while the chat template is applied; remove it from the data"
                )
        if example.is_continuation or not self.tokenizer.chat_template:
            return example.context, example.question + example.answer_prefix
        text = str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": example.context + _SPLIT + example.question}],
                chat_template=self._template(),
                tokenize=False,
                add_generation_prompt=True,
                date_string=_TEMPLATE_DATE,
            )
        )
        before, *after = text.split(_SPLIT)
        if len(after) != 1:
            raise TokenizerError(
                f"the chat template renders the user's message {len(after)} times instead of once"
            )
        return before, after[0] + example.answer_prefix

    def _template(self) -> str:
        """Return the chat template, with a fixed date in place of today's."""
        template = str(self.tokenizer.get_chat_template())
        return _TEMPLATE_NOW + template if "strftime_now" in template else template

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
