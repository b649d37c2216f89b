"""An attention attached to a transformers model answers like the same one in an experiment."""

import copy
import dataclasses

import pytest
import torch
from presets import EVICTING, REWRITING, SELECTING
from test_eviction import CONTEXT, QUESTION
from torch.testing import assert_close
from transformers import pipeline
from transformers.cache_utils import DynamicCache

import sah
from sah.attention import DenseAttention, SparseAttention
from sah.evictors.snapkv import SnapKV
from sah.maskers.oracle_top_k import OracleTopK
from sah.models.tiny import tiny_tokenizer

ALL = SparseAttention(name="all", maskers={"best": OracleTopK(fraction=1.0)})


def prefilled(model):
    return model(torch.tensor([CONTEXT])).past_key_values


def require_equal(session, found, expected):
    assert found == expected.tokens
    assert session.density() == pytest.approx(expected.density, rel=1e-6)
    assert session.rows_read() == pytest.approx(expected.rows_read, rel=1e-6)
    assert session.resident() == pytest.approx(expected.resident, rel=1e-6)
    assert session.prefill_density() == pytest.approx(expected.prefill_density, rel=1e-6)


@pytest.mark.parametrize("name", [*SELECTING, *EVICTING, *REWRITING])
def test_a_question_about_a_prefilled_cache_is_answered_as_in_an_experiment(
    name, configured, preset, answer, generate
):
    attention, model = preset(name), configured.model
    with sah.attach(model, attention, tokenizer=tiny_tokenizer()) as session:
        cache = prefilled(model)
        (found,) = generate(model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    require_equal(session, found, answer(configured, attention))


@pytest.mark.parametrize("model_type", ["gemma2", "gpt_oss"])
@pytest.mark.parametrize("name", ["quest", "snapkv", "tova_decoding", "kivi", "kvzip"])
def test_sliding_windows_soft_caps_and_sinks_are_those_of_an_experiment(
    model_type, name, small, preset, answer, generate
):
    model, attention = small(model_type), preset(name)
    with sah.attach(model.model, attention, tokenizer=tiny_tokenizer()) as session:
        cache = prefilled(model.model)
        (found,) = generate(model.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    require_equal(session, found, answer(model, attention))


@pytest.mark.parametrize("name", ["quest", "snapkv"])
def test_layers_that_are_kept_dense_read_the_whole_cache(name, tiny, preset, answer, generate):
    attention = dataclasses.replace(preset(name), dense_layers="1::2")
    with sah.attach(tiny.model, attention) as session:
        cache = prefilled(tiny.model)
        (found,) = generate(tiny.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    require_equal(session, found, answer(tiny, attention))


@pytest.mark.parametrize("name", ["quest", "snapkv", "kivi"])
def test_generate_reads_the_prompt_densely_and_decodes_sparsely(
    name, tiny, preset, answer, generate
):
    attention = preset(name)
    (dense,) = generate(tiny.model, [CONTEXT], tokens=1)
    with sah.attach(tiny.model, attention) as session:
        (found,) = generate(tiny.model, [CONTEXT], tokens=7)
    assert found[:1] == dense
    require_equal(session, found[1:], answer(tiny, attention, question=dense))


@pytest.mark.parametrize("name", ["quest", "magic_pig", "snapkv", "expected_attention", "kivi"])
def test_a_row_of_a_padded_batch_is_decoded_as_it_is_alone(name, tiny, preset, generate):
    attention = preset(name)
    rows = [CONTEXT, CONTEXT[5:60], CONTEXT[30:]]
    alone, densities = [], []
    for row in rows:
        with sah.attach(tiny.model, attention) as session:
            alone += generate(tiny.model, [row])
        densities.append(session.density())
    with sah.attach(tiny.model, attention) as session:
        together = generate(tiny.model, rows)
    assert together == alone
    assert session.density() == pytest.approx(sum(densities) / 3, rel=1e-6)


@pytest.mark.parametrize("name", ["quest", "expected_attention"])
def test_a_padded_batch_may_be_given_to_the_model_directly(name, tiny, preset):
    short, step = CONTEXT[25:], torch.tensor([[7], [9]])
    ids, mask = torch.tensor([CONTEXT, [0] * 25 + short]), torch.ones(2, 90, dtype=torch.long)
    mask[1, :25] = 0
    more = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    places = more.cumsum(-1) - 1
    with sah.attach(tiny.model, preset(name)):
        read = {"attention_mask": mask, "position_ids": places[:, :-1]}
        cache = tiny.model(ids, **read).past_key_values
        read = {"attention_mask": more, "position_ids": places[:, -1:]}
        together = tiny.model(step, past_key_values=cache, **read).logits
        alone = []
        for row, own in enumerate((CONTEXT, short)):
            cache = tiny.model(torch.tensor([own])).past_key_values
            alone.append(tiny.model(step[row : row + 1], past_key_values=cache).logits)
    assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_sampling_with_every_key_draws_the_tokens_of_the_dense_model(tiny, generate):
    def sampled():
        torch.manual_seed(3)
        return generate(
            tiny.model, [CONTEXT], do_sample=True, temperature=2.0, num_return_sequences=3
        )

    dense = sampled()
    with sah.attach(tiny.model, ALL) as session:
        assert sampled() == dense
    assert len({tuple(row) for row in dense}) > 1
    assert session.density() == 1


@pytest.mark.parametrize("name", ["quest", "snapkv", "tova_decoding"])
def test_copies_of_a_prefilled_cache_answer_several_questions(name, tiny, preset, answer, generate):
    attention = preset(name)
    questions = [QUESTION, QUESTION[::-1], QUESTION]
    with sah.attach(tiny.model, attention) as session:
        cache = prefilled(tiny.model)
        found = [
            generate(tiny.model, [[*CONTEXT, *one]], past_key_values=copy.deepcopy(cache))[0]
            for one in questions
        ]
    expected = [answer(tiny, attention, question=one) for one in questions]
    assert found == [one.tokens for one in expected]
    mean = sum(one.density for one in expected) / 3
    assert session.density() == pytest.approx(mean, rel=1e-6)


def test_a_cache_filled_before_is_continued_under_maskers(tiny, preset, answer, generate):
    cache = prefilled(tiny.model)
    with sah.attach(tiny.model, preset("quest")) as session:
        (found,) = generate(tiny.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    require_equal(session, found, answer(tiny, preset("quest")))


def test_a_cache_filled_in_inference_mode_is_continued_outside_of_it(tiny, preset, generate):
    with sah.attach(tiny.model, preset("snapkv")):
        expected = generate(
            tiny.model, [[*CONTEXT, *QUESTION]], past_key_values=prefilled(tiny.model)
        )
        with torch.inference_mode():
            cache = prefilled(tiny.model)
        found = generate(tiny.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    assert found == expected


def test_a_cache_without_a_configuration_keeps_the_sliding_windows(small, preset, generate):
    model = small("gemma2").model
    found = []
    for cache in (DynamicCache(), DynamicCache(config=model.config)):
        with sah.attach(model, preset("quest")):
            found.append(generate(model, [CONTEXT], past_key_values=cache))
    assert found[0] == found[1]


@pytest.mark.parametrize("model_type", ["gemma2", "tiny"])
def test_a_dense_question_is_followed_by_sparse_decode_steps(
    model_type, small, tiny, preset, answer, generate
):
    model, attention = tiny if model_type == "tiny" else small(model_type), preset("quest")
    with sah.attach(model.model, attention, question="dense") as session:
        cache = prefilled(model.model)
        (found,) = generate(model.model, [[*CONTEXT, *QUESTION]], past_key_values=cache)
    expected = answer(model, attention, dense_question=True)
    require_equal(session, found, expected)
    assert expected.tokens != answer(model, attention).tokens


def test_a_pipeline_runs_the_attention(tiny, preset, generate):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    texts = ["The grass is green. " * 12, "What is the answer? " * 5]
    settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    pipe = pipeline("text-generation", model=tiny.model, tokenizer=tokenizer, batch_size=2)
    alone = []
    for text in texts:
        with sah.attach(tiny.model, preset("quest")):
            alone.append(pipe(text, **settings)[0]["generated_text"])
    with sah.attach(tiny.model, preset("quest")) as session:
        together = [one[0]["generated_text"] for one in pipe(texts, **settings)]
    assert together == alone
    assert session.density() < 0.5


def test_the_cache_of_an_evictor_holds_only_what_is_kept(tiny):
    attention = SparseAttention(name="mine", evict={"mine": SnapKV(tokens=20, window=8)})
    with sah.attach(tiny.model, attention):
        cache = prefilled(tiny.model)
        for layer in cache.layers:
            (row,) = layer.rows.rows
            kept = row.session._kept[0]
            assert row.cache.layers[0].keys.shape[2] == 20
            assert kept.key.untyped_storage().nbytes() == kept.key.element_size()
        assert cache.get_seq_length() == len(CONTEXT)


def test_everything_is_restored_also_after_an_exception(tiny, preset):
    model, ids = tiny.model, torch.tensor([CONTEXT])
    before, implementation = dict(vars(model)), model.config._attn_implementation
    logits = model(ids).logits

    def fail():
        with sah.attach(model, preset("snapkv")):
            cache = model(ids).past_key_values
            model(torch.tensor([[3]]), past_key_values=cache)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert vars(model) == before
    assert model.config._attn_implementation == implementation
    assert_close(model(ids).logits, logits, rtol=0, atol=0)


def test_what_was_read_counts_after_the_cache_is_gone(tiny, preset, generate):
    with sah.attach(tiny.model, preset("snapkv")) as session:
        assert session.density() is session.rows_read() is session.resident() is None
        generate(tiny.model, [CONTEXT])
        first = session.density(), session.resident()
        generate(tiny.model, [CONTEXT])
        assert (session.density(), session.resident()) == pytest.approx(first)
    assert not session._live
    assert session.density() == pytest.approx(first[0])


def test_dense_attention_changes_nothing(tiny, generate):
    dense = generate(tiny.model, [CONTEXT])
    for attention in ("dense", DenseAttention()):
        with sah.attach(tiny.model, attention) as session:
            assert generate(tiny.model, [CONTEXT]) == dense
        assert (session.density(), session.rows_read(), session.resident()) == (1, 1, 1)


def test_fields_and_overrides_set_the_values_of_a_preset(tiny, preset):
    overrides = ("maskers.quest.page_size=8", "sparse_attention.dense_layers=[]")
    with sah.attach(tiny.model, "quest", *overrides, fraction=0.05) as session:
        expected = preset("quest").maskers["quest"]
        expected = dataclasses.replace(expected, fraction=0.05, page_size=8)
        assert session.attention.maskers == {"quest": expected}
        assert session.attention.dense_layers == []
    added = "+masker@maskers.best=oracle_top_k"
    with sah.attach(tiny.model, "snapkv", added, window=8, dense_layers=[0]) as session:
        assert session.attention.evictor == SnapKV(fraction=0.25, window=8)
        assert list(session.attention.maskers) == ["best"]
        assert session.attention.dense_layers == [0]
