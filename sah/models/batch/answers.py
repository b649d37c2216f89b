"""Answering a batch of rows.

Questions are read together, and each decode step reads the weights once for all rows. A row reads
what it would read alone.
"""

# B rows

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.models.batch.in_turn import InTurn
from sah.models.batch.row import Row
from sah.models.batch.row_cache import RowCache
from sah.models.batch.side_by_side import SideBySide
from sah.models.decoding import Answer, AnswerInProgress
from sah.models.generation import Sampler, naming_example, next_tokens
from sah.models.language_model import LanguageModel, PrefilledContext

# Tokens of questions that pass through the model together. More would take memory, but no less
# time: the products of so many are as fast as they get.
_TOGETHER_TOKENS = 1024


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

    Short questions are read together. Then each step decodes one token of every row whose answer
    goes on. A single row, and the rows of a model that `decodes_alone`, are answered one by one.

    While questions are read, rows take turns in every layer. While answers are decoded, attention
    is computed for all rows together, on a copy of their keys and values side by side. Rows for
    which it would be too large, such as those about one long context, take turns there as well.

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
    shared = _shared(model, rows)
    try:
        active = [
            row
            for together in _read_together(model, rows)
            for row in _read(model, together, dense_question, shared)
        ]
        # Every row of the copy has room for the longest.
        fits = len(rows) * max(row.context.cache.capacity for row in rows) <= stacked_tokens
        decoding = (SideBySide if fits else InTurn)(model, active) if active else None
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


def _shared(model: LanguageModel, rows: Sequence[Row]) -> Mapping[int, PrefilledContext]:
    """Return the contexts that several rows are about, by identity."""
    about = Counter(id(row.context) for row in rows)
    shared = {}
    for row in rows:
        if about[id(row.context)] == 1:
            continue
        if row.context.length == 0:
            # There is nothing to share, and turns would copy all that the row has.
            row.context = model.prefill((), reserve_tokens=row.context.cache.capacity)
        else:
            shared[id(row.context)] = row.context
    return shared


def _read_together(model: LanguageModel, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Divide rows into those whose questions are read together, in order."""
    found: list[Row] = []
    tokens = 0
    for row in rows:
        # What an evictor sees after the question is of one forward pass.
        is_alone = row.after_question is not None or model.reads_single_tokens
        tokens += len(row.question_ids)
        if found and (is_alone or tokens > _TOGETHER_TOKENS):
            yield found
            found, tokens = [], len(row.question_ids)
        found.append(row)
        if is_alone:
            yield found
            found, tokens = [], 0
    if found:
        yield found


def _read(
    model: LanguageModel,
    rows: Sequence[Row],
    dense_question: bool,
    shared: Mapping[int, PrefilledContext],
) -> list[Row]:
    """Read the questions of rows, and choose their first tokens; return those that go on."""
    started = time.perf_counter()
    for row in rows:
        row.begin_turn()
        row.session.begin_example(row.example_id)
        row.session.learn(model.model.config)
        row.answer = AnswerInProgress(
            row.sampler,
            limit=row.max_new_tokens,
            eos_token_ids=model.eos_token_ids,
            thinking=row.thinking,
        )
    if len(rows) > 1:
        for row in rows:
            row.cache = RowCache(row.context, shared=shared.get(id(row.context)))
        dense = AttentionSession(DenseAttention(), seed=0) if dense_question else None
        logits = InTurn(model, rows).read(dense)
    else:
        logits = _read_alone(model, rows[0], dense_question, shared.get(id(rows[0].context)))
    going = _advanced(rows, logits)
    seconds = time.perf_counter() - started
    tokens = sum(len(row.question_ids) for row in rows)
    for row in rows:
        row.seconds += seconds * len(row.question_ids) / tokens
    return [row for row, goes_on in zip(rows, going, strict=True) if goes_on]


def _read_alone(
    model: LanguageModel, row: Row, dense_question: bool, shared: PrefilledContext | None
) -> Tensor:
    """Read the question of one row; return the logits of its last token, [1, vocabulary]."""
    held, logits = model.read_question(
        row.context,
        row.question_ids,
        session=row.session,
        dense_question=dense_question,
        after_question=row.after_question,
    )
    row.cache = RowCache(held, shared=shared)
    if shared is not None:
        shared.cache.rewind()
    return logits


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
