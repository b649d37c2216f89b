"""Decoding in batches of rows: questions about one context or several.

Each decode step reads the weights once for all rows, and computes the attention of all rows
together. A row reads what it would read alone.
"""

# B rows, H query heads, G key-value heads, R rows of a layer's cache, S of them after the context,
# D head dimension

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sah.attention.interface import attention_replaced, layer_number
from sah.attention.session import AttentionSession
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.stacked.stacked_layer import Part, StackedLayer
from sah.attention.stacked.stacked_session import StackedSession
from sah.models.cache import BufferedLayer
from sah.models.decoding import Answer, AnswerInProgress
from sah.models.generation import Sampler, TokenChooser, naming_example, next_tokens
from sah.models.language_model import AfterQuestion, LanguageModel, PrefilledContext
from sah.models.thoughts import Thinking


@dataclass(kw_only=True)
class Row:
    """A question about a prefilled context, and its answer while it is decoded."""

    example_id: str
    context: PrefilledContext
    """May be that of other rows, too."""
    question_ids: Sequence[int]
    """At least one token."""
    session: AttentionSession
    """A fork of its own of the context's session."""
    sampler: TokenChooser
    max_new_tokens: int
    """At least 1."""
    thinking: Thinking | None = None
    """As in `LanguageModel.answer`."""
    after_question: AfterQuestion | None = None
    """As in `LanguageModel.answer`."""
    begin_turn: Callable[[], None] = lambda: None
    """Called before each computation for this row alone."""
    answer: AnswerInProgress = field(init=False)
    """Set when the question has been read."""
    seconds: float = 0.0
    """Time of question and answer; of a step of the batch, an equal share."""
    cache: "_RowCache" = field(init=False)

    @property
    def room(self) -> int:
        """Tokens for which memory is reserved."""
        return max(1, self.context.cache.capacity - self.cache.length)

    def choose(self, logits: Tensor) -> bool:
        """Choose the next token and take it; return whether the answer continues."""
        with naming_example(self.example_id):
            return self.answer.choose(logits)


@torch.inference_mode()
def answer_rows(
    model: LanguageModel,
    rows: Sequence[Row],
    *,
    dense_question: bool = False,
    between_tokens: Callable[[], None] = lambda: None,
    stacked_tokens: int = sys.maxsize,
) -> list[Answer]:
    """Answer the questions of some rows together, and rewind the caches of their contexts.

    Questions are read row by row. Then each step decodes one token of every row whose answer goes
    on. A single row, and the rows of a model that `decodes_alone`, are answered one by one.

    Attention is computed for all rows together, on a copy of their keys and values side by side.
    Rows for which it would be too large, such as those about one long context, take turns in the
    caches.

    Args:
        model: prefilled the contexts.
        rows: at least one.
        dense_question: compute the questions with the model's own attention.
        between_tokens: called before every decode step; may raise to stop all answers.
        stacked_tokens: the most tokens that the copy may have room for: as many rows as there are,
            each as long as the longest context with its question and answer.
    """
    if len(rows) == 1 or model.decodes_alone:
        return [_alone(model, row, dense_question, between_tokens) for row in rows]
    about = Counter(id(row.context) for row in rows)
    shared = {context for context, count in about.items() if count > 1}
    for row in rows:
        if row.context.length == 0 and id(row.context) in shared:
            # There is nothing to share, and turns would copy all that the row has.
            row.context = model.prefill((), reserve_tokens=row.context.cache.capacity)
    try:
        active = [row for row in rows if _read(model, row, dense_question, shared)]
        # Every row of the copy has room for the longest.
        fits = len(rows) * max(row.context.cache.capacity for row in rows) <= stacked_tokens
        decoding = (_SideBySide if fits else _InTurn)(model, active) if active else None
        while decoding is not None and decoding.rows:
            between_tokens()
            started = time.perf_counter()
            logits = decoding.step()
            going = _advanced(decoding.rows, logits)
            share = (time.perf_counter() - started) / len(going)
            for row in decoding.rows:
                row.seconds += share
            decoding.keep(going)
    finally:
        for row in rows:
            row.context.cache.rewind()
    return [row.answer.answer(row.seconds) for row in rows]


def _alone(
    model: LanguageModel, row: Row, dense_question: bool, between_tokens: Callable[[], None]
) -> Answer:
    row.begin_turn()
    row.session.begin_example(row.example_id)
    with naming_example(row.example_id):
        return model.answer(
            row.context,
            row.question_ids,
            session=row.session,
            sampler=row.sampler,
            max_new_tokens=row.max_new_tokens,
            thinking=row.thinking,
            dense_question=dense_question,
            after_question=row.after_question,
            between_tokens=between_tokens,
        )


def _read(model: LanguageModel, row: Row, dense_question: bool, shared: Collection[int]) -> bool:
    """Read the question of a row and choose its first token; return whether the answer goes on."""
    shares_context = id(row.context) in shared
    started = time.perf_counter()
    row.begin_turn()
    row.session.begin_example(row.example_id)
    row.session.learn(model.model.config)
    held, logits = model.read_question(
        row.context,
        row.question_ids,
        session=row.session,
        dense_question=dense_question,
        after_question=row.after_question,
    )
    row.cache = _RowCache(row.context, held, shares_context=shares_context)
    if shares_context:
        row.context.cache.rewind()
    row.answer = AnswerInProgress(
        row.sampler,
        limit=row.max_new_tokens,
        eos_token_ids=model.eos_token_ids,
        thinking=row.thinking,
    )
    (goes_on,) = _advanced([row], logits)
    row.seconds += time.perf_counter() - started
    return goes_on


def _advanced(rows: Sequence[Row], logits: Tensor) -> list[bool]:
    """Take the next token of each row; return which answers continue."""
    going = [row.answer.take_forced() for row in rows]
    # Other samplers do more than to choose.
    samplers = {
        number: row.sampler
        for number, row in enumerate(rows)
        if going[number] is None and isinstance(row.sampler, Sampler)
    }
    if samplers:
        some = logits if len(samplers) == len(rows) else logits[list(samplers)]
        tokens = next_tokens(list(samplers.values()), some)
        for number, token in zip(samplers, tokens, strict=True):
            if token is not None:
                going[number] = rows[number].answer.take(token)
    return [
        row.choose(logits[number : number + 1]) if goes_on is None else goes_on
        for number, (row, goes_on) in enumerate(zip(rows, going, strict=True))
    ]


class _InTurn:
    """Decodes rows whose attention is computed one after the other, in their own caches."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._model = model

    def step(self) -> Tensor:
        """Feed the last token of each row; return the logits, [B, vocabulary]."""
        with attention_replaced(self._model.model, self._attention, lambda **_: None):
            logits = _decoded(self._model, self.rows)
        for row in self.rows:
            row.cache.length += 1
        return logits

    def keep(self, going: Sequence[bool]) -> None:
        """Continue with the rows whose answers go on."""
        self.rows = [row for row, goes_on in zip(self.rows, going, strict=True) if goes_on]

    def _attention(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        # query is B H 1 D, key and value are B G 1 D: the last token of each row
        layer, window = layer_number(module), kwargs.get("sliding_window")
        outputs = []
        for number, row in enumerate(self.rows):
            row.begin_turn()
            this = slice(number, number + 1)
            with row.cache.turn(layer, row.session) as cached:
                keys, values = cached.update(key[this], value[this])
                if window is not None:
                    keys, values = keys[:, :, -window:], values[:, :, -window:]
                outputs.append(row.session.attend(module, query[this], keys, values, **kwargs))
        return torch.cat(outputs), None


class _SideBySide:
    """Decodes rows whose keys and values have been copied into one tensor a layer."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._model = model
        self._session = StackedSession(
            [row.session for row in rows], [row.begin_turn for row in rows]
        )
        self._layers: dict[int, StackedLayer] = {}
        self._lengths: dict[tuple[torch.device, tuple[int, ...]], RowLengths] = {}
        """By device and the numbers of keys at the first step: layers with the same ones share
        them."""

    def step(self) -> Tensor:
        """Feed the last token of each row; return the logits, [B, vocabulary]."""
        for lengths in self._lengths.values():
            lengths.advance()
        with attention_replaced(self._model.model, self._attention, lambda **_: None):
            logits = _decoded(self._model, self.rows)
        self._session.end_step()
        for row in self.rows:
            row.cache.length += 1
        return logits

    def keep(self, going: Sequence[bool]) -> None:
        """Continue with the rows whose answers go on."""
        for number, goes_on in enumerate(going):
            if not goes_on:
                self._session.retire(number)
        count = sum(going)
        if count in (0, len(going)):
            self.rows = self.rows[:count]
            return
        # The last rows that go on take the places of those that have ended.
        free = [number for number in range(count) if not going[number]]
        late = [number for number in range(count, len(going)) if going[number]]
        moves = list(zip(late, free, strict=True))
        order = list(range(count))
        for source, target in moves:
            order[target] = source
        self.rows = [self.rows[number] for number in order]
        self._session.keep(moves, count)
        for layer in self._layers.values():
            layer.keep(moves, count)
        for lengths in self._lengths.values():
            lengths.keep(order)

    def _attention(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        # query is B H 1 D, key and value are B G 1 D: the last token of each row
        number = layer_number(module)
        if number not in self._layers:
            self._layers[number] = self._stacked(number, kwargs.get("sliding_window"))
        layer = self._layers[number]
        layer.append(key, value)
        return self._session.attend(module, query, layer, **kwargs), None

    def _stacked(self, number: int, window: int | None) -> StackedLayer:
        parts = [row.cache.parts(number) for row in self.rows]
        cached = [sum(key.shape[2] for key, _ in of_row) for of_row in parts]
        # A model may be spread over several devices.
        device, keys = parts[0][0][0].device, tuple(count + 1 for count in cached)
        if (device, keys) not in self._lengths:
            self._lengths[device, keys] = RowLengths(keys, device)
        return StackedLayer(
            parts,
            self._lengths[device, keys],
            room=max(count + row.room for count, row in zip(cached, self.rows, strict=True)),
            kept=[row.session.kept_at(number) for row in self.rows],
            window=window,
        )


def _decoded(model: LanguageModel, rows: Sequence[Row]) -> Tensor:
    return model.decode_rows(
        [row.answer.tokens[-1] for row in rows], [row.cache.length for row in rows]
    )


class _RowCache:
    """The layers of a row's cache, some of which it may share with other rows of its context.

    A shared layer has the keys of the context. During the turn of a row, it has those of its
    question and answer as well, which are kept here for the rest of the time.
    """

    def __init__(
        self, context: PrefilledContext, held: PrefilledContext, *, shares_context: bool
    ) -> None:
        """Take over what a row has read.

        Args:
            context: of the row.
            held: what its answer is decoded from.
            shares_context: whether other rows are about the same context, whose cache is rewound
                after this.
        """
        self.length = held.cache.length
        """Tokens of the sequence."""
        self._layers: list[Any] = list(held.cache.layers)
        self._after_context: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values after the context in shared layers, each [1, G, S, D]."""
        if not shares_context:
            return
        for number, layer in enumerate(self._layers):
            # Layers of other kinds are replaced when the cache is rewound, and not written into.
            if layer is context.cache.layers[number] and isinstance(layer, BufferedLayer):
                begin = layer.keys.shape[2] - (layer.get_seq_length() - context.length)
                self._after_context[number] = _copied(layer, begin)

    def parts(self, layer: int) -> list[Part]:
        """Return the keys and values of a layer: of the context, and what comes after it."""
        cached = self._layers[layer]
        after = self._after_context.get(layer)
        return [(cached.keys, cached.values)] + ([] if after is None else [after])

    @contextmanager
    def turn(self, layer: int, session: AttentionSession) -> Iterator[Any]:
        """Yield a layer with all keys of this row; what is appended to it stays this row's."""
        cached = self._layers[layer]
        if layer not in self._after_context:
            yield cached
            return
        begin = cached.keys.shape[2]
        session.rewind(layer)
        cached.update(*self._after_context[layer])
        try:
            yield cached
            self._after_context[layer] = _copied(cached, begin)
        finally:
            cached.crop(begin - cached.keys.shape[2])  # minus the number of rows to remove


def _copied(layer: Any, begin: int) -> tuple[Tensor, Tensor]:
    """Copy the rows from `begin` on, which the next row overwrites."""
    return layer.keys[:, :, begin:].clone(), layer.values[:, :, begin:].clone()
