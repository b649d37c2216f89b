"""What `sah.attach` cannot do right is refused by name, before it runs."""

import copy

import pytest
import torch
from test_eviction import CONTEXT
from transformers import StaticCache
from transformers.cache_utils import DynamicCache
from zoo import small_model

import sah
from sah.attention import SparseAttention
from sah.errors import ConfigurationError
from sah.maskers.sink import Sink

SINK = SparseAttention(name="mine", maskers={"sink": Sink(tokens=4)})


def begin(model, attention=SINK, *overrides, **fields):
    with sah.attach(model, attention, *overrides, **fields):
        pass


@pytest.mark.parametrize(
    ("attention", "overrides", "fields", "message"),
    [
        ("qest", [], {}, "did you mean quest"),
        ("quest", ["maskers.quest.page_sise=8"], {}, "did you mean .*page_size"),
        ("quest", ["model=tiny"], {}, "model=tiny is not about the attention"),
        ("quest", ["-m"], {}, "not about the attention"),
        ("quest", [], {"fractoin": 0.1}, "did you mean fraction.*maskers.quest.fraction"),
        ("quest", [], {"fraction": 2.0}, "fraction"),
        ("quest", [], {"dense_layers": [7]}, "layers \\[7\\]"),
        ("sparse", [], {"tokens": 3}, "could be any of maskers.sink.tokens, maskers.local.tokens"),
        ("streaming_llm", [], {"dense_layers": "0::1"}, "no layer to work on"),
        (SINK, [], {"tokens": 3}, "dataclasses.replace"),
        (Sink(tokens=4), [], {}, "takes the name of an attention or a SparseAttention"),
        ("double_sparsity", [], {}, "must be fitted to a model"),
        ("native", [], {}, "model's own indexer, and LlamaForCausalLM has none"),
    ],
)
def test_a_wrong_attention_is_refused_with_the_way_out(attention, overrides, fields, message, tiny):
    with pytest.raises(ConfigurationError, match=message):
        begin(tiny.model, attention, *overrides, **fields)
    assert "forward" not in vars(tiny.model)


def test_a_model_that_the_gate_refuses_is_refused():
    with pytest.raises(ConfigurationError, match="cannot be measured"):
        begin(small_model("bert"))


@pytest.mark.parametrize("attention", ["dense", "native", "streaming_llm"])
def test_a_model_with_an_indexer_of_its_own_is_refused_and_left_as_it_was(attention):
    model = small_model("deepseek_v32")
    before = model.config._attn_implementation
    with pytest.raises(ConfigurationError, match="indexer of its own"):
        begin(model, attention)
    assert model.config._attn_implementation == before


def test_a_layer_that_shares_the_keys_of_another_is_refused():
    with pytest.raises(ConfigurationError, match="keys shared between layers"):
        begin(small_model("gemma4_text"))


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("deepseek_v3", "layer 0 attends to 4 heads of dimension 24, but caches .*latent"),
        ("falcon_h1", "cached as LinearAttentionAndFullAttentionLayer"),
    ],
)
def test_keys_that_rows_cannot_hold_are_refused_before_a_prefill(model_type, message):
    with pytest.raises(ConfigurationError, match=message):
        begin(small_model(model_type))


def test_other_models_are_refused(tiny):
    with pytest.raises(ConfigurationError, match="got Linear"):
        begin(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigurationError, match="LlamaModel has no language-model head"):
        begin(tiny.model.model)
    trained = copy.deepcopy(tiny.model).train()
    with pytest.raises(ConfigurationError, match="training mode"):
        begin(trained)
    with sah.attach(tiny.model, SINK), pytest.raises(ConfigurationError, match="already attached"):
        begin(tiny.model)


@pytest.mark.parametrize("name", ["snapkv", "kivi"])
def test_a_dense_question_needs_the_whole_cache(name, tiny):
    with pytest.raises(ConfigurationError, match="question='dense' needs the whole cache"):
        begin(tiny.model, name, question="dense")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"prefill_chunk_size": 16}, "prefill_chunk_size=16"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens=3"),
        ({"use_cache": False}, "use_cache=False"),
        ({"output_attentions": True}, "output_attentions=True"),
    ],
)
def test_settings_of_generate_are_refused_before_the_prefill(options, message, tiny, generate):
    with sah.attach(tiny.model, SINK) as session:
        with pytest.raises(ConfigurationError, match=message):
            generate(tiny.model, [CONTEXT], **options)
        config = copy.deepcopy(tiny.model.generation_config)
        config.update(**options)
        with pytest.raises(ConfigurationError, match=message):
            generate(tiny.model, [CONTEXT], generation_config=config)
        assert not session._live


def test_assisted_generation_is_refused_by_the_class_of_the_assistant(tiny, generate):
    refused = pytest.raises(ConfigurationError, match="assistant_model=LlamaForCausalLM")
    with sah.attach(tiny.model, SINK), refused:
        generate(tiny.model, [CONTEXT], assistant_model=tiny.model)


def test_other_caches_are_refused_by_name(tiny):
    ids = torch.tensor([CONTEXT])
    with sah.attach(tiny.model, SINK):
        static = StaticCache(config=tiny.model.config, max_cache_len=200)
        with pytest.raises(ConfigurationError, match="got StaticCache"):
            tiny.model(ids, past_key_values=static)
        with pytest.raises(ConfigurationError, match="nothing would be sparse"):
            tiny.model(ids, use_cache=False)
        with pytest.raises(ConfigurationError, match="has no weights for all keys"):
            tiny.model(ids, output_attentions=True)


def test_right_padding_and_masks_of_other_shapes_are_refused(tiny):
    ids, mask = torch.tensor([CONTEXT, CONTEXT]), torch.ones(2, len(CONTEXT), dtype=torch.long)
    mask[1, -3:] = 0
    with sah.attach(tiny.model, SINK):
        with pytest.raises(ConfigurationError, match=r"row 1 .*padding_side='left'"):
            tiny.model(ids, attention_mask=mask)
        with pytest.raises(ConfigurationError, match=r"shape \[2, tokens\]"):
            tiny.model(ids, attention_mask=mask[:, None, None].bool())


def test_a_continuation_of_another_batch_or_with_masked_tokens_is_refused(tiny):
    ids, step = torch.tensor([CONTEXT, CONTEXT]), torch.tensor([[3, 4], [5, 6]])
    padded = torch.ones_like(ids)
    padded[0, :7] = 0
    with sah.attach(tiny.model, SINK):
        cache = tiny.model(ids, attention_mask=padded).past_key_values
        with pytest.raises(ConfigurationError, match="1 rows, but the cache holds 2"):
            tiny.model(step[:1], past_key_values=cache)
        with pytest.raises(ConfigurationError, match="give the mask of all tokens"):
            tiny.model(step, past_key_values=cache)
        mask = torch.cat([padded, torch.tensor([[0, 1], [1, 1]])], dim=1)
        with pytest.raises(ConfigurationError, match="are masked"):
            tiny.model(step, past_key_values=cache, attention_mask=mask)


def test_what_changes_a_cache_in_another_way_is_refused(tiny):
    with sah.attach(tiny.model, SINK):
        cache = tiny.model(torch.tensor([CONTEXT])).past_key_values
        cache.crop(0)
        for change in (
            lambda: cache.crop(-1),
            lambda: cache.reorder_cache(torch.tensor([0])),
            lambda: cache.batch_repeat_interleave(2),
            lambda: cache.batch_select_indices(torch.tensor([0])),
            cache.reset,
        ):
            with pytest.raises(ConfigurationError, match="does not support"):
                change()


def test_a_cache_is_of_no_use_after_the_block(tiny):
    with sah.attach(tiny.model, SINK):
        cache = tiny.model(torch.tensor([CONTEXT])).past_key_values
    with pytest.raises(ConfigurationError, match="which has ended"):
        tiny.model(torch.tensor([[3]]), past_key_values=cache)


def test_an_evictor_needs_a_prefill_inside_the_block(tiny):
    cache = tiny.model(torch.tensor([CONTEXT])).past_key_values
    refused = pytest.raises(ConfigurationError, match="90 tokens was filled outside")
    with sah.attach(tiny.model, "knorm"), refused:
        tiny.model(torch.tensor([[3]]), past_key_values=cache)


def test_inputs_that_cannot_be_divided_among_rows_are_refused_where_each_is_read_alone(tiny):
    ids = torch.tensor([CONTEXT, CONTEXT])
    refused = pytest.raises(ConfigurationError, match="cannot do with pixel_values")
    with sah.attach(tiny.model, "knorm"), refused:
        tiny.model(ids, pixel_values=torch.zeros(2, 3))


def test_an_evictor_counts_positions_from_the_first_token(tiny):
    ids, mask = torch.tensor([CONTEXT, CONTEXT]), torch.ones(2, 90, dtype=torch.long)
    mask[1, :7] = 0
    with sah.attach(tiny.model, "knorm"):
        with pytest.raises(ConfigurationError, match="give them"):
            tiny.model(ids, attention_mask=mask)
        with pytest.raises(ConfigurationError, match="from 0"):
            tiny.model(ids[:1], position_ids=torch.arange(90)[None] + 1)


def test_an_offloaded_cache_is_refused(tiny):
    cache = DynamicCache(config=tiny.model.config)
    cache.offloading = True
    refused = pytest.raises(ConfigurationError, match="DynamicCache with offloading")
    with sah.attach(tiny.model, SINK), refused:
        tiny.model(torch.tensor([CONTEXT]), past_key_values=cache)
