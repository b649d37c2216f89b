"""Answers from a prefilled context equal those of `generate` on the whole prompt."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import NonFiniteLogits
from sah.maskers.oracle_top_k import OracleTopK
from sah.models import language_model
from sah.models.generation import Generation
from sah.models.language_model import Answer, LanguageModel, PrefilledContext

CONTEXT = [1 + (7 * n) % 390 for n in range(50)]
QUESTIONS = [[5 + (step * n) % 380 for n in range(length)] for step, length in ((11, 6), (3, 20))]
EOS = 1


def generate(model: LanguageModel, ids: Sequence[int], new_tokens: int) -> list[int]:
    """Answer greedily with transformers; the end-of-sequence token is left out."""
    output = model.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=new_tokens,
        do_sample=False,
    )
    tokens: list[int] = output[0, len(ids) :].tolist()
    return tokens[:-1] if tokens[-1] in model.eos_token_ids else tokens


def answer(
    model: LanguageModel,
    context: PrefilledContext,
    question: Sequence[int],
    *,
    new_tokens: int = 20,
    **options: Any,
) -> Answer:
    return model.answer(
        context,
        question,
        session=AttentionSession(DenseAttention(), seed=0),
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=new_tokens,
        **options,
    )


@contextmanager
def changed_logits(model: LanguageModel, change: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Change the logits of the model's calls, numbered from 0."""
    calls = iter(range(10**6))

    def hook(module: Any, inputs: Any, output: Any) -> None:
        change(next(calls), output.logits)

    handle = model.model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("end", [0, 1, 25, 50], ids=lambda end: f"context_of_{end}")
@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_greedy_tokens_equal_those_of_generate(
    name: str, end: int, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    context = model.prefill(CONTEXT[:end], reserve_tokens=40)
    for question in QUESTIONS:
        # The model sees the same tokens wherever the context ends.
        whole = CONTEXT + question
        found = answer(model, context, whole[end:], new_tokens=25)
        assert found.token_ids == generate(model, whole, 25)


def test_an_answer_ends_at_its_limit(tiny: LanguageModel) -> None:
    context = tiny.prefill(CONTEXT, reserve_tokens=40)
    for limit in (1, 4):
        found = answer(tiny, context, QUESTIONS[0], new_tokens=limit)
        assert found.finish_reason == "length"
        assert len(found.token_ids) == found.steps == limit


def test_eos_as_the_first_token_ends_with_an_empty_answer(tiny: LanguageModel) -> None:
    def eos_at_once(call: int, logits: Tensor) -> None:
        logits[..., EOS] = 1e6

    context = tiny.prefill(CONTEXT, reserve_tokens=40)
    with changed_logits(tiny, eos_at_once):
        found = answer(tiny, context, QUESTIONS[0])
    assert (found.token_ids, found.finish_reason, found.steps) == ([], "eos", 1)


def test_eos_is_counted_but_not_part_of_the_answer(tiny: LanguageModel) -> None:
    def eos_third(call: int, logits: Tensor) -> None:
        logits[..., EOS] = 1e6 if call == 2 else -1e6

    context = tiny.prefill(CONTEXT, reserve_tokens=40)
    with changed_logits(tiny, eos_third):
        found = answer(tiny, context, QUESTIONS[0])
    assert len(found.token_ids) == 2
    assert (found.finish_reason, found.steps) == ("eos", 3)


@pytest.mark.parametrize(
    ("configured", "expected"), [(7, {7}), ([7, 9], {7, 9}), (None, {EOS})], ids=str
)
def test_eos_token_ids_are_the_model_s_or_else_the_tokenizer_s(
    configured: Any, expected: set[int], tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", configured)
    assert LanguageModel(tiny.model, tiny.prompts).eos_token_ids == expected


@pytest.mark.parametrize("call", [0, 2], ids=["question", "decoding"])
def test_nan_logits_are_an_error_and_leave_the_context_unchanged(
    call: int, tiny: LanguageModel
) -> None:
    def broken(number: int, logits: Tensor) -> None:
        logits[..., EOS] = -1e6
        if number == call:
            logits[...] = torch.nan

    context = tiny.prefill(CONTEXT, reserve_tokens=40)
    before = answer(tiny, context, QUESTIONS[0])
    with changed_logits(tiny, broken), pytest.raises(NonFiniteLogits):
        answer(tiny, context, QUESTIONS[1])
    assert context.cache.get_seq_length() == len(CONTEXT)
    assert answer(tiny, context, QUESTIONS[0]).token_ids == before.token_ids


@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_stopping_between_tokens_leaves_the_context_unchanged(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    context = model.prefill(CONTEXT, reserve_tokens=40)
    before = answer(model, context, QUESTIONS[0])
    held = [(layer.keys.clone(), layer.values.clone()) for layer in context.cache.layers]
    calls = iter([None, None, TimeoutError()])

    def third_time() -> None:
        if (error := next(calls)) is not None:
            raise error

    def no_end(call: int, logits: Tensor) -> None:
        logits[..., EOS] = -1e6

    with changed_logits(model, no_end), pytest.raises(TimeoutError):
        answer(model, context, QUESTIONS[1], between_tokens=third_time)
    for layer, (keys, values) in zip(context.cache.layers, held, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert answer(model, context, QUESTIONS[0]).token_ids == before.token_ids


def test_between_tokens_is_called_before_every_decode_step(tiny: LanguageModel) -> None:
    def no_end(call: int, logits: Tensor) -> None:
        logits[..., EOS] = -1e6

    calls: list[int] = []
    context = tiny.prefill(CONTEXT, reserve_tokens=40)
    with changed_logits(tiny, no_end):
        answer(
            tiny,
            context,
            QUESTIONS[0],
            new_tokens=5,
            between_tokens=lambda: calls.append(context.cache.get_seq_length()),
        )
    first = len(CONTEXT) + len(QUESTIONS[0])
    assert calls == [first, first + 1, first + 2, first + 3]


def test_one_context_does_not_see_another(tiny: LanguageModel) -> None:
    contexts = [CONTEXT, CONTEXT[::-1]]
    prefilled = [tiny.prefill(ids, reserve_tokens=40) for ids in contexts]
    for question in QUESTIONS:
        for ids, context in zip(contexts, prefilled, strict=True):
            found = answer(tiny, context, question)
            assert found.token_ids == generate(tiny, ids + question, 20)


def test_a_continuation_reuses_selections_like_decode_steps(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny.prefill(CONTEXT, reserve_tokens=30)
    losses = {}
    for every, tokens_at_once in ((3, 128), (3, 7), (3, 1), (1, 128)):
        monkeypatch.setattr(language_model, "_LOSS_CHUNK_TOKENS", tokens_at_once)
        masker = OracleTopK(tokens=5, every=every)
        session = AttentionSession(SparseAttention(name="top", maskers={"top": masker}), seed=0)
        session.begin_context(context.length)
        for _ in range(2):
            session.begin_example("continuation")
            loss, _ = tiny.continuation_loss(context, QUESTIONS[1], session=session)
            previous = losses.setdefault((every, tokens_at_once), loss)
            assert loss == previous
    assert losses[3, 7] == pytest.approx(losses[3, 128], rel=1e-5)
    assert losses[3, 1] == pytest.approx(losses[3, 128], rel=1e-5)
    assert losses[1, 128] != pytest.approx(losses[3, 128], rel=1e-4)
