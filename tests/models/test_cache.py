"""The cache grows in place, and rewinds to the context without copying or losing anything."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.models.cache import BufferedLayer, RewindableCache
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext

CONTEXT = [1 + (7 * n) % 390 for n in range(30)]
QUESTION = [5 + (11 * n) % 380 for n in range(6)]


def answer(
    model: LanguageModel,
    context: PrefilledContext,
    question: Sequence[int] = QUESTION,
    new_tokens: int = 10,
) -> list[int]:
    return model.answer(
        context,
        question,
        session=AttentionSession(DenseAttention(), seed=0),
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=new_tokens,
    ).token_ids


def held(cache: RewindableCache) -> list[tuple[Tensor, Tensor]]:
    return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]


def assert_identical(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    for (keys, values), (other_keys, other_values) in zip(one, other, strict=True):
        assert torch.equal(keys, other_keys)
        assert torch.equal(values, other_values)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    capacity=st.integers(0, 12),
    steps=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=8),
)
def test_a_buffered_layer_equals_concatenation_and_cropping(
    capacity: int, steps: list[tuple[int, int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = BufferedLayer(capacity)
    keys, values = torch.empty(2, 3, 0, 4), torch.empty(2, 3, 0, 5)
    for added, removed in steps:
        new_keys = torch.randn(2, 3, added, 4, generator=generator)
        new_values = torch.randn(2, 3, added, 5, generator=generator)
        keys, values = torch.cat([keys, new_keys], 2), torch.cat([values, new_values], 2)
        returned = layer.update(new_keys, new_values)
        assert torch.equal(returned[0], keys)
        assert torch.equal(returned[1], values)
        removed = min(removed, keys.shape[2])
        layer.crop(-removed)
        keys, values = (t[:, :, : t.shape[2] - removed] for t in (keys, values))
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
        assert layer.get_seq_length() == keys.shape[2]


def test_appending_within_the_capacity_moves_nothing() -> None:
    layer = BufferedLayer(20)
    layer.update(torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4))
    where = layer.keys.data_ptr(), layer.values.data_ptr()
    for _ in range(15):
        layer.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == where
    layer.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    assert layer.keys.shape == (1, 2, 21, 4)
    assert layer.keys[:, :, :5].eq(1).all()
    assert layer.keys[:, :, 5:].eq(0).all()


def test_beyond_its_capacity_a_layer_is_not_reallocated_for_every_token() -> None:
    layer = BufferedLayer(100)
    sizes = set()
    for _ in range(200):
        layer.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        sizes.add(layer.keys.untyped_storage().nbytes())
    assert len(sizes) <= 5


@pytest.mark.parametrize("length", [3, 30], ids=["within_the_window", "beyond_the_window"])
@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_rewinding_leaves_keys_and_values_bit_identical(
    name: str, length: int, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    context = model.prefill(CONTEXT[:length], reserve_tokens=40)
    before = held(context.cache)
    answer(model, context, new_tokens=30)
    assert_identical(held(context.cache), before)
    assert context.cache.get_seq_length() == context.length == length
    again = model.prefill(CONTEXT[:length], reserve_tokens=40)
    assert_identical(held(again.cache), before)


@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_later_answers_equal_those_from_a_fresh_context(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    used = model.prefill(CONTEXT, reserve_tokens=40)
    questions = [QUESTION, QUESTION[2:], QUESTION[::-1], QUESTION]
    answers = [answer(model, used, question) for question in questions]
    for question, found in zip(questions, answers, strict=True):
        assert found == answer(model, model.prefill(CONTEXT, reserve_tokens=40), question)
    assert len({tuple(found) for found in answers}) > 1


def test_a_question_longer_than_the_reserved_room_works(tiny: LanguageModel) -> None:
    roomy = tiny.prefill(CONTEXT, reserve_tokens=100)
    tight = tiny.prefill(CONTEXT, reserve_tokens=0)
    before = held(roomy.cache)
    for question in (QUESTION * 5, QUESTION):
        assert answer(tiny, tight, question) == answer(tiny, roomy, question)
        assert_identical(held(tight.cache), before)


@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_rewinding_at_the_mark_changes_nothing(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    context = model.prefill(CONTEXT, reserve_tokens=40)
    before = held(context.cache)
    context.cache.rewind()
    context.cache.rewind()
    assert_identical(held(context.cache), before)


@pytest.mark.parametrize("name", ["tiny", "sliding"])
def test_an_empty_context_can_be_restored(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    context = model.prefill([], reserve_tokens=40)
    assert context.length == 0
    first = answer(model, context)
    answer(model, context, QUESTION[::-1])
    assert context.cache.get_seq_length() == 0
    assert answer(model, context) == first


def test_full_attention_layers_are_buffered_and_windows_stay_small(
    tiny: LanguageModel, sliding: LanguageModel
) -> None:
    full = tiny.prefill(CONTEXT, reserve_tokens=10).cache
    assert all(type(layer) is BufferedLayer for layer in full.layers)
    assert all(layer.capacity == len(CONTEXT) + 10 for layer in full.layers)
    windows = sliding.prefill(CONTEXT, reserve_tokens=10).cache
    assert all(layer.keys.shape[2] == 7 for layer in windows.layers)
