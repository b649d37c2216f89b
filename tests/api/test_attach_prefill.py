"""Sparse prefill, and contexts that the model repeats, under `sah.attach`."""

import dataclasses

import pytest
import torch
from test_eviction import CONTEXT, QUESTION
from torch.testing import assert_close
from zoo import small_model

import sah
from sah.attention import SparseAttention
from sah.errors import ConfigurationError
from sah.evictors.kvzip import KVzip
from sah.evictors.snapkv import SnapKV
from sah.maskers.oracle_top_k import OracleTopK
from sah.models.tiny import tiny_tokenizer
from sah.patterns.a_shape import AShape
from sah.patterns.block_top_k import BlockTopK
from sah.patterns.flexprefill import FlexPrefill
from sah.patterns.moba import MoBA
from sah.patterns.tri_shape import TriShape
from sah.patterns.vertical_slash import VerticalSlash
from sah.patterns.xattention import XAttention

PATTERNS = {
    "a_shape": AShape(sinks=2, window=5),
    "tri_shape": TriShape(sinks=2, window=5, last_queries=10),
    "vertical_slash": VerticalSlash(verticals=6, slashes=4, sinks=2, local=4, last_queries=16),
    "block_top_k": BlockTopK(blocks=2, block=8),
    "flexprefill": FlexPrefill(gamma=0.5, min_budget=8, block=8),
    "moba": MoBA(block=16, top_k=2),
    "xattention": XAttention(threshold=0.5, stride=4, block=16),
}
SPARSE = SparseAttention(name="mine", prefill={"mine": PATTERNS["a_shape"]})


def with_pattern(name, **stages):
    return SparseAttention(name="mine", prefill={"mine": PATTERNS[name]}, **stages)


def prefilled(model, context=CONTEXT):
    return model(torch.tensor([context])).past_key_values


def require_equal(session, found, expected):
    assert found == expected.tokens
    assert session.prefill_density() == pytest.approx(expected.prefill_density, rel=1e-6)
    assert session.density() == pytest.approx(expected.density, rel=1e-6)
    assert session.resident() == pytest.approx(expected.resident, rel=1e-6)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_context_is_read_by_a_pattern_as_in_an_experiment(name, tiny, answer, generate):
    attention = with_pattern(name)
    with sah.attach(tiny.model, attention) as session:
        cache = prefilled(tiny.model)
        (found,) = generate(tiny.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    expected = answer(tiny, attention)
    require_equal(session, found, expected)
    assert expected.prefill_density < 0.9


@pytest.mark.parametrize(
    "stages",
    [
        {"evict": {"mine": SnapKV(tokens=20, window=8)}},
        {"evict": {"mine": KVzip(tokens=20, chunk=40)}},
        {"maskers": {"mine": OracleTopK(tokens=10)}, "dense_layers": [1]},
    ],
)
@pytest.mark.parametrize("model_type", ["tiny", "gemma2", "gpt_oss"])
def test_patterns_evictors_and_maskers_combine_as_in_an_experiment(
    model_type, stages, tiny, small, answer, generate
):
    model = tiny if model_type == "tiny" else small(model_type)
    attention = with_pattern("tri_shape", **stages)
    if model_type != "tiny":
        attention = dataclasses.replace(attention, dense_layers=())
    with sah.attach(model.model, attention, tokenizer=tiny_tokenizer()) as session:
        cache = prefilled(model.model)
        (found,) = generate(model.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    require_equal(session, found, answer(model, attention))


def test_the_first_token_of_a_generation_comes_from_the_sparse_prefill(tiny, generate):
    with sah.attach(tiny.model, SPARSE) as session:
        found = tiny.model(torch.tensor([CONTEXT])).logits
        assert session.prefill_density() is None
        generate(tiny.model, [CONTEXT])
    assert session.prefill_density() < 0.2
    assert not torch.allclose(found[:, -1], tiny.model(torch.tensor([CONTEXT])).logits[:, -1])


@pytest.mark.parametrize("model_type", ["tiny", "gemma2"])
@pytest.mark.parametrize(
    "attention",
    [
        SPARSE,
        with_pattern("xattention", evict={"mine": SnapKV(tokens=20, window=8)}),
        SparseAttention(name="mine", evict={"mine": KVzip(tokens=20, chunk=40)}),
    ],
    ids=["pattern", "pattern and evictor", "kvzip"],
)
def test_a_row_of_a_padded_batch_is_read_as_it_is_alone(
    model_type, attention, tiny, small, generate
):
    model = (tiny if model_type == "tiny" else small(model_type)).model
    rows = [CONTEXT, CONTEXT[5:60], CONTEXT[30:]]
    alone, shares = [], []
    for row in rows:
        with sah.attach(model, attention, tokenizer=tiny_tokenizer()) as session:
            alone += generate(model, [row])
        shares.append(session.prefill_density())
    with sah.attach(model, attention, tokenizer=tiny_tokenizer()) as session:
        together = generate(model, rows)
    assert together == alone
    assert session.prefill_density() == pytest.approx(sum(shares) / 3, rel=1e-6)


def test_all_logits_of_a_padded_batch_are_those_of_each_row_alone(tiny):
    short = CONTEXT[25:]
    ids, mask = torch.tensor([CONTEXT, [0] * 25 + short]), torch.ones(2, 90, dtype=torch.long)
    mask[1, :25] = 0
    with sah.attach(tiny.model, SPARSE):
        places = mask.cumsum(-1) - 1
        together = tiny.model(ids, attention_mask=mask, position_ids=places).logits
        alone = tiny.model(torch.tensor([short])).logits
    assert_close(together[1:, 25:], alone, atol=1e-4, rtol=1e-4)


def test_what_a_batch_cannot_join_is_refused_before_its_rows_are_read(tiny):
    ids = torch.tensor([CONTEXT, CONTEXT])
    with sah.attach(tiny.model, SPARSE):
        for name, value in (("output_hidden_states", True), ("labels", ids)):
            with pytest.raises(ConfigurationError, match=f"leave {name} out"):
                tiny.model(ids, **{name: value})
        with pytest.raises(ConfigurationError, match=r"logits_to_keep \(a tensor"):
            tiny.model(ids, logits_to_keep=torch.tensor([3]))
        assert len(tiny.model(ids[:1], output_hidden_states=True).hidden_states) > 1
    model = small_model("qwen3_next")
    refused = pytest.raises(ConfigurationError, match=r"layer 0 caches \(LinearAttention")
    with sah.attach(model, SPARSE), refused:
        model(ids)


def test_a_cache_filled_before_was_not_read_by_the_pattern(tiny):
    cache = prefilled(tiny.model)
    refused = pytest.raises(ConfigurationError, match="by a pattern, but this cache of 90 tokens")
    with sah.attach(tiny.model, SPARSE), refused:
        tiny.model(torch.tensor([[3]]), past_key_values=cache)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [(None, "needs the model's tokenizer; add tokenizer="), (3, "tokenizer, got int; add")],
)
def test_a_context_is_repeated_with_the_tokenizer_of_the_model(tokenizer, message, tiny):
    refused = pytest.raises(ConfigurationError, match=message)
    with refused, sah.attach(tiny.model, "kvzip", tokenizer=tokenizer):
        pass


def test_a_context_is_repeated_from_its_tokens(tiny):
    refused = pytest.raises(ConfigurationError, match="got inputs_embeds; give input_ids")
    with sah.attach(tiny.model, "kvzip", tokenizer=tiny_tokenizer()), refused:
        tiny.model(inputs_embeds=tiny.model.get_input_embeddings()(torch.tensor([CONTEXT])))
