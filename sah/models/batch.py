"""Decoding several questions of one context in one batch, over the one cache of the context.

The weights are read once for all questions of a step. Attention is computed question by
question: each has keys of its own behind the context's, which lie in the cache only while it
is their turn, so that the context is never copied.
"""

# B questions, G key-value heads, S tokens behind the context, D head dimension

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from sah.attention.session import AttentionSession, attention_replaced
from sah.errors import ConfigurationError
from sah.models.cache import RewindableCache
from sah.models.generation import TokenChooser, naming_example
from sah.models.language_model import Answer, LanguageModel, PrefilledContext


@dataclass(kw_only=True)
class BatchedQuestion:
    """One question of a batch, and how far its answer is."""

    example_id: str
    question_ids: Sequence[int]
    session: AttentionSession
    """A fork of the arm's, or the only one."""
    sampler: TokenChooser
    max_new_tokens: int
    begin_turn: Callable[[], None]
    """Called before anything is computed for this question."""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    steps: int = 0
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Keys and values of each layer behind the context, [1, G, S, D]."""

    def choose(self, logits: Tensor, eos_token_ids: frozenset[int]) -> bool:
        """Take the next token; return whether the answer goes on."""
        with naming_example(self.example_id):
            token = self.sampler.choose(logits)
        self.steps += 1
        if token in eos_token_ids:
            self.finish_reason = "eos"
            return False
        self.tokens.append(token)
        return self.steps < self.max_new_tokens


@torch.inference_mode()
def answer_batch(
    model: LanguageModel,
    context: PrefilledContext,
    questions: Sequence[BatchedQuestion],
    *,
    dense_question: bool,
    between_tokens: Callable[[], None],
) -> list[Answer]:
    """Answer questions of one context together; the cache is left as it was found.

    Questions are read one by one, as `LanguageModel.answer` reads them. An answer's
    seconds are its share of the batch.

    Raises:
        ConfigurationError: if a layer of the model cannot be rewound without a copy.
    """
    if not context.cache.is_croppable:
        raise ConfigurationError(
            "generation.batch_questions: this model has sliding-window or other layers whose "
            "cache cannot be shared by a batch; leave it null"
        )
    started = time.perf_counter()
    going = []
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
            question.own = _behind(context)
        finally:
            context.cache.rewind()
        if question.choose(logits, model.eos_token_ids):
            going.append(question)
    while going:
        between_tokens()
        logits = _step(model, context, going)
        going = [
            question
            for row, question in enumerate(going)
            if question.choose(logits[row : row + 1], model.eos_token_ids)
        ]
    seconds = (time.perf_counter() - started) / len(questions)
    return [
        Answer(
            token_ids=question.tokens,
            finish_reason=question.finish_reason,
            steps=question.steps,
            seconds=seconds,
        )
        for question in questions
    ]


def _step(
    model: LanguageModel, context: PrefilledContext, going: Sequence[BatchedQuestion]
) -> Tensor:
    """Feed each question's last token; return the logits, [B, vocabulary]."""

    def attention(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        outputs = []
        for row, question in enumerate(going):
            question.begin_turn()
            with _Turn(context.cache, layer, question) as cached:
                keys, values = cached.update(key[row : row + 1], value[row : row + 1])
                question.session.rewind(layer)
                outputs.append(
                    question.session.attend(module, query[row : row + 1], keys, values, **kwargs)
                )
        return torch.cat(outputs), None

    ids = [[question.tokens[-1]] for question in going]
    positions = [[context.length + question.own[0][0].shape[2]] for question in going]
    with attention_replaced(model.model, attention, lambda **_: None):
        logits: Tensor = model.model(
            input_ids=torch.tensor(ids, device=model.device),
            position_ids=torch.tensor(positions, device=model.device),
            past_key_values=_NothingCached(),
            use_cache=True,
            logits_to_keep=1,
        ).logits
    return logits[:, -1]


class _Turn:
    """A question's own keys and values in one layer of the cache, while it is its turn."""

    def __init__(self, cache: RewindableCache, layer: int, question: BatchedQuestion) -> None:
        self.cache, self.layer, self.question = cache, layer, question

    def __enter__(self) -> Any:
        cached: Any = self.cache.layers[self.layer]
        self._length = cached.get_seq_length()
        cached.update(*self.question.own[self.layer])
        return cached

    def __exit__(self, *_: object) -> None:
        cached: Any = self.cache.layers[self.layer]
        # Copied, a few rows: the next question writes over them.
        self.question.own[self.layer] = (
            cached.keys[:, :, self._length :].clone(),
            cached.values[:, :, self._length :].clone(),
        )
        cached.crop(self._length - cached.get_seq_length())


class _NothingCached(DynamicCache):
    """Hands a layer's new keys and values on as they are; `_step` knows the others."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what it is given."""
        return key_states, value_states


def _behind(context: PrefilledContext) -> list[tuple[Tensor, Tensor]]:
    """Copies of what the cache holds behind the context, layer by layer."""
    layers: list[Any] = context.cache.layers
    return [
        (
            layer.keys[:, :, context.length :].clone(),
            layer.values[:, :, context.length :].clone(),
        )
        for layer in layers
    ]
