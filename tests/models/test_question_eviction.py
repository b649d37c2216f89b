"""Evicting after a dense question: like evicting from one prefill of context and question."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_eviction import CONTEXT, QUESTION, SELECTING, Logits, Ragged, alive, answered, evicting
from torch import Tensor
from torch.testing import assert_close
from zoo import small_model

from sah.attention import DenseAttention, SparseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.session import AttentionSession
from sah.evictors.decoding.h2o_decoding import H2ODecoding
from sah.evictors.decoding.r_kv import RKV
from sah.evictors.decoding.rescoring import Decoding
from sah.evictors.decoding.tova_decoding import TOVADecoding
from sah.evictors.expected_attention import ExpectedAttention
from sah.evictors.h2o import H2O
from sah.evictors.knorm import KNorm
from sah.evictors.leverage import Leverage
from sah.evictors.presses.kvpress_scorer import KVPressScorer
from sah.evictors.random_eviction import RandomEviction
from sah.evictors.snapkv import SnapKV
from sah.models.eviction import evicted
from sah.models.language_model import AfterQuestion, LanguageModel, PrefilledContext
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer
from sah.rewriters.kivi import KIVI

AT_CONTEXT = {
    "knorm": KNorm(fraction=0.3),
    "random": RandomEviction(fraction=0.3),
    "snapkv": SnapKV(fraction=0.3, window=8),
    "snapkv_beyond_the_question": SnapKV(fraction=0.3, window=16),
    "h2o": H2O(fraction=0.3),
    "leverage": Leverage(fraction=0.3, sketch=8),
    "expected_attention": ExpectedAttention(fraction=0.3, future=32),
    "ragged": Ragged(),
}
WHILE_DECODING = {
    "h2o": H2ODecoding(fraction=0.2),
    "tova": TOVADecoding(tokens=20),
    "r_kv": RKV(tokens=20, window=4, every=3),
    "decoding": Decoding(of=SnapKV(tokens=20, window=16), every=2),
}


def reading_all(model: LanguageModel, attention: SparseAttention, ids: list[int]) -> Any:
    """The reference: prefill all of it, and evict once."""
    context = model.prefill(ids, reserve_tokens=30, witness=attention.witness)
    return context, evicted(context, attention, model.model.config, seed=0)


def reading_question(
    model: LanguageModel, attention: SparseAttention, context: list[int], question: list[int]
) -> tuple[PrefilledContext, PrefilledContext]:
    assert attention.witness is not None
    # Other arms of the job may need more of the prefill.
    more = attention.witness | Witness(last_queries=64)
    shared = model.prefill(context, reserve_tokens=30 + len(question), witness=more)
    both, _ = model.prefill_question(shared, question, witness=attention.witness)
    return shared, evicted(both, attention, model.model.config, seed=0)


def assert_same_keys(one: PrefilledContext, other: PrefilledContext) -> None:
    first, second = alive(one), alive(other)
    assert first.keys() == second.keys() != set()
    for layer, marks in first.items():
        assert torch.equal(marks, second[layer])


@pytest.fixture
def single(tiny: LanguageModel) -> Iterator[LanguageModel]:
    tiny.reads_single_tokens = True
    yield tiny
    tiny.reads_single_tokens = False


@pytest.mark.parametrize("split", [0, 2, 78, 90])
@pytest.mark.parametrize("name", AT_CONTEXT)
def test_keeps_the_keys_that_one_prefill_of_both_keeps(
    name: str, split: int, tiny: LanguageModel
) -> None:
    attention, ids = evicting(AT_CONTEXT[name]), CONTEXT + QUESTION
    _, expected = reading_all(tiny, attention, ids)
    _, own = reading_question(tiny, attention, ids[:split], ids[split:])
    assert own.length == len(ids)
    assert_same_keys(own, expected)


@pytest.mark.parametrize("name", AT_CONTEXT)
def test_a_model_that_reads_single_tokens_keeps_the_same_keys(
    name: str, single: LanguageModel
) -> None:
    attention = evicting(AT_CONTEXT[name])
    _, expected = reading_all(single, attention, CONTEXT + QUESTION)
    _, own = reading_question(single, attention, CONTEXT, QUESTION)
    assert_same_keys(own, expected)


@pytest.mark.parametrize("press", ["ExpectedAttention", "LeverageScore", "SnapKV"])
def test_a_press_scores_context_and_question(press: str, tiny: LanguageModel) -> None:
    if importlib.util.find_spec("kvpress") is None:
        pytest.skip("needs pip install --no-deps kvpress")
    attention = evicting(KVPressScorer(press=f"kvpress.{press}Press", fraction=0.3))
    _, expected = reading_all(tiny, attention, CONTEXT + QUESTION)
    _, own = reading_question(tiny, attention, CONTEXT, QUESTION)
    assert_same_keys(own, expected)


def logits_of(
    model: LanguageModel, own: PrefilledContext, attention: SparseAttention, ids: list[int]
) -> Tensor:
    """Return the logits of tokens that are read one by one."""
    session = AttentionSession(attention, seed=0)
    session.begin_context(own.length, own.kept)
    session.begin_example("one")
    with torch.inference_mode(), session.attached(model.model):
        return torch.cat([model.forward([token], own.cache, logits=1)[:, -1] for token in ids])


ATTENTIONS = {
    **{f"{name}_decoding": evicting(one) for name, one in WHILE_DECODING.items()},
    "snapkv": evicting(SnapKV(fraction=0.3, window=16)),
    "ragged": evicting(Ragged(), dense_layers=[0]),
    "selecting": evicting(KNorm(fraction=0.5), maskers=SELECTING),
    "rewriting": SparseAttention(name="x", rewrite={"x": KIVI(residual=8)}),
    "both": evicting(KNorm(fraction=0.5), rewrite={"x": KIVI(residual=8)}),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_decodes_from_what_is_kept_and_rewinds_the_shared_cache(
    name: str, tiny: LanguageModel
) -> None:
    attention = ATTENTIONS[name]
    _, expected = reading_all(tiny, attention, CONTEXT + QUESTION)
    shared = tiny.prefill(CONTEXT, reserve_tokens=30, witness=attention.witness)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in shared.cache.layers]
    session = AttentionSession(attention, seed=0)
    session.begin_context(shared.length)

    def keep(both: PrefilledContext) -> PrefilledContext:
        own = evicted(both, attention, tiny.model.config, seed=0)
        session.begin_context(own.length, own.kept)
        return own

    def answer(question: list[int]) -> tuple[list[int], Tensor]:
        assert attention.witness is not None
        session.begin_example("one")
        sampler = Logits()
        given = tiny.answer(
            shared,
            question,
            session=session,
            sampler=sampler,
            max_new_tokens=10,
            dense_question=True,
            after_question=AfterQuestion(witness=attention.witness, keep=keep),
        )
        return given.token_ids, torch.cat(sampler.seen)

    tokens, logits = answer(QUESTION)
    reference = logits_of(tiny, expected, attention, tokens[:-1])
    assert_close(logits[1:], reference, atol=1e-5, rtol=1e-5)
    answer(QUESTION[::-1])
    assert torch.equal(answer(QUESTION)[1], logits)
    for layer, (keys, values) in zip(shared.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    dense = AttentionSession(DenseAttention(), seed=0)
    dense.begin_context(shared.length)
    other = tiny.prefill(CONTEXT, reserve_tokens=30)
    first_token = answered(tiny, shared, dense)[1][:1]
    assert torch.equal(first_token, answered(tiny, other, dense)[1][:1])
    assert_close(logits[:1], first_token, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", ["gemma3_text", "qwen3_next"])
def test_layers_that_are_not_compacted_are_rewound_with_the_question(model_type: str) -> None:
    model = LanguageModel(small_model(model_type), PromptEncoder(tiny_tokenizer(), None))
    attention = evicting(KNorm(fraction=0.4))
    _, expected = reading_all(model, attention, CONTEXT + QUESTION)
    shared, own = reading_question(model, attention, CONTEXT, QUESTION)
    ids = QUESTION[:4]
    logits = logits_of(model, own, attention, ids)
    assert_close(logits, logits_of(model, expected, attention, ids), atol=1e-4, rtol=1e-4)
    shared.cache.rewind()
    assert shared.cache.length == len(CONTEXT)
    with torch.inference_mode():
        again = model.forward(ids, shared.cache, logits=1)
        fresh = model.prefill(CONTEXT, reserve_tokens=30)
        assert torch.equal(again, model.forward(ids, fresh.cache, logits=1))
