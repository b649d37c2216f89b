"""From an example to token ids: template once, one BOS, split where the context ends."""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from sah.errors import ConfigurationError, TokenizerError
from sah.types import Example

# Marks the end of the context while the template is applied: a private-use character
# that text does not contain and templates do not touch.
_SPLIT = "\uf8ff"

# Some templates write today's date into the prompt; the same experiment would give another
# prompt tomorrow. Those of Llama take one that is given, others (gpt-oss, Granite) call for it.
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
    """Question, the template's turn to the assistant, and the answer prefix."""
    truncated: bool = False
    """Whether the context was cut in the middle to fit."""

    @property
    def input_hash(self) -> str:
        """Hash of all token ids in order, wherever the context ends."""
        return _hash(self.context_ids + self.question_ids)

    @property
    def context_hash(self) -> str:
        """Hash of the context's token ids."""
        return _hash(self.context_ids)


def _hash(ids: list[int]) -> str:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=12).hexdigest()


class PromptEncoder:
    """Encodes examples for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int | None) -> None:
        self.tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        self._adds_bos = self._find_adds_bos()
        # The questions of a context follow each other: encode a long context once.
        self._last_context: tuple[str | None, list[int]] = (None, [])

    def encode(self, example: Example) -> EncodedPrompt:
        """Encode an example.

        Raises:
            TokenizerError: if the chat template loses or repeats the prompt.
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
        """Cut what is too long, where the examples allow it.

        Args:
            examples: all of one context, so that the cut is the same for all.
            prompts: theirs.
            new_tokens: how long the answer of each may get.

        Raises:
            ConfigurationError: naming an example that may not be cut, its length and the limit.
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
                f"tokens and {new} new ones are more than the {limit} the model takes; lower "
                "benchmark.context_tokens, or choose a model with a longer context"
            )
        # LongBench's rule: instructions stand at both ends.
        cut = context[: room - room // 2] + context[len(context) - room // 2 :]
        return [replace(prompt, context_ids=cut, truncated=True) for prompt in prompts]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text on its own, without special tokens."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False).input_ids]

    def prompt_length(self, example: Example) -> int:
        """Tokens of the whole prompt as the model sees it, chat template included."""
        before, after = self._render(example)
        return len(self._context_ids(before)) + len(self._ids(after))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, example: Example) -> tuple[str, str]:
        """The text up to the end of the context, and the text after it."""
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
                f"the chat template shows the user's message {len(after)} times instead of once"
            )
        return before, after[0] + example.answer_prefix

    def _template(self) -> str:
        """The chat template, whose today is always the same day."""
        template = str(self.tokenizer.get_chat_template())
        return _TEMPLATE_NOW + template if "strftime_now" in template else template

    def _context_ids(self, text: str) -> list[int]:
        ids = self._ids(text)
        bos = self.tokenizer.bos_token_id
        # Many templates write BOS themselves; the tokenizer's own would be the second.
        if self._adds_bos and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _find_adds_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a").input_ids[:1] == [bos]
