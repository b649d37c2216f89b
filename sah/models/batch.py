"""Batched decoding of several questions about one context, without copying its cache.

Each decode step reads the weights once for all questions. Attention runs question by question:
the keys after the context differ, and are in the cache only during their question's turn.
"""

# B questions, H query heads, G key-value heads, K keys, S of them after the context,
# D head dimension

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from sah.attention.interface import attention_replaced, layer_number
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.models.cache import RewindableCache
from sah.models.decoding import Answer, AnswerInProgress
from sah.models.generation import TokenChooser, naming_example
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.thoughts import Thinking


@dataclass(kw_only=True)
class BatchedQuestion:
    """A question of a batch and the state of its answer."""

    example_id: str
    question_ids: Sequence[int]
    session: AttentionSession
    """The arm's session or a fork of it, not shared with another question of the batch."""
    sampler: TokenChooser
    max_new_tokens: int
    begin_turn: Callable[[], None]
    """Called before each computation for this question."""
    thinking: Thinking | None = None
    """As in `LanguageModel.answer`."""
    answer: AnswerInProgress = field(init=False)
    """Set when the question has been read."""
    after_context: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Keys and values of question and answer so far, per layer, each [1, G, S, D]."""

    def begin_answer(self, eos_token_ids: frozenset[int]) -> None:
        """Start without any token."""
        self.answer = AnswerInProgress(
            self.sampler,
            limit=self.max_new_tokens,
            eos_token_ids=eos_token_ids,
            thinking=self.thinking,
        )

    def advance(self, logits: Tensor) -> bool:
        """Take the next token; return whether the answer continues."""
        with naming_example(self.example_id):
            return self.answer.advance(logits)


@torch.inference_mode()
def answer_batch(
    model: LanguageModel,
    context: PrefilledContext,
    questions: Sequence[BatchedQuestion],
    *,
    dense_question: bool,
    between_tokens: Callable[[], None],
) -> list[Answer]:
    """Answer several questions about one context; rewind its cache afterwards.

    Only decoding is batched: the questions are read one at a time, as in `LanguageModel.answer`.
    The batch's seconds are divided equally among the answers.

    Raises:
        ConfigurationError: if a layer of the model cannot be rewound without a copy.
    """
    if not context.cache.is_croppable:
        raise ConfigurationError(
            "generation.batch_questions must be null for this model: the cache of its "
            "sliding-window or other layers cannot be shared by the questions of a batch"
        )
    started = time.perf_counter()
    unfinished = []
    for question in questions:
        question.begin_turn()
        question.session.begin_example(question.example_id)
        try:
            logits = model.read_question(
                context,
                question.question_ids,
                session=question.session,
                dense_question=dense_question,
            )
            question.after_context = _copied_after_context(context)
        finally:
            context.cache.rewind()
        question.begin_answer(model.eos_token_ids)
        if question.advance(logits):
            unfinished.append(question)
    while unfinished:
        between_tokens()
        logits = _step(model, context, unfinished)
        unfinished = [
            question
            for row, question in enumerate(unfinished)
            if question.advance(logits[row : row + 1])
        ]
    seconds = (time.perf_counter() - started) / len(questions)
    return [question.answer.answer(seconds) for question in questions]


def _step(
    model: LanguageModel, context: PrefilledContext, questions: Sequence[BatchedQuestion]
) -> Tensor:
    """Feed the last token of each question; return the logits, [B, vocabulary]."""

    def attention(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        # query is B H 1 D, key and value are B G 1 D: the last token of each question
        layer = layer_number(module)
        outputs = []
        for row, question in enumerate(questions):
            question.begin_turn()
            with _Turn(context.cache, layer, question) as cached:
                keys, values = cached.update(key[row : row + 1], value[row : row + 1])
                # keys 1 G K D: the context, then this question and its answer so far
                question.session.rewind(layer)
                outputs.append(
                    question.session.attend(module, query[row : row + 1], keys, values, **kwargs)
                )
        return torch.cat(outputs), None

    ids = [question.answer.tokens[-1:] for question in questions]
    # The model's cache is empty, so positions would start at 0 unless they are given.
    positions = [[context.length + question.after_context[0][0].shape[2]] for question in questions]
    with (
        model.rope.of_length(context.cache.capacity),
        attention_replaced(model.model, attention, lambda **_: None),
    ):
        logits: Tensor = model.model(
            input_ids=torch.tensor(ids, device=model.device),
            position_ids=torch.tensor(positions, device=model.device),
            past_key_values=_PassThroughCache(),
            use_cache=True,
            logits_to_keep=1,
        ).logits
    return logits[:, -1]


class _Turn:
    """Appends a question's keys and values to one layer of the cache, and removes them again."""

    def __init__(self, cache: RewindableCache, layer: int, question: BatchedQuestion) -> None:
        self.cache, self.layer, self.question = cache, layer, question

    def __enter__(self) -> Any:
        cached: Any = self.cache.layers[self.layer]
        self._rows = cached.keys.shape[2]
        cached.update(*self.question.after_context[self.layer])
        return cached

    def __exit__(self, *_: object) -> None:
        cached: Any = self.cache.layers[self.layer]
        # Copied, as the next question overwrites these few rows.
        self.question.after_context[self.layer] = (
            cached.keys[:, :, self._rows :].clone(),
            cached.values[:, :, self._rows :].clone(),
        )
        cached.crop(self._rows - cached.keys.shape[2])  # minus the number of keys to remove


class _PassThroughCache(DynamicCache):
    """Stores nothing and returns a layer's new keys and values; `_step` adds the earlier ones."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the arguments unchanged."""
        return key_states, value_states


def _copied_after_context(context: PrefilledContext) -> list[tuple[Tensor, Tensor]]:
    """Copy the keys and values after the context out of the cache, layer by layer."""
    layers: list[Any] = context.cache.layers
    copied = []
    for layer in layers:
        after = slice(layer.keys.shape[2] - (layer.get_seq_length() - context.length), None)
        copied.append((layer.keys[:, :, after].clone(), layer.values[:, :, after].clone()))
    return copied
