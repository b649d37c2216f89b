import torch
from transformers import Gemma3TextConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sah.calibration.capture import read_attention
from sah.calibration.passages import Passage


def test_reads_queries_and_keys_after_the_rotary_embedding(tiny, passages, readings):
    """Compared with the first layer's own projections, rotated."""
    ids = torch.tensor([passages[0].token_ids])
    inner = tiny.model.model
    layer = inner.layers[0]
    with torch.no_grad():
        hidden = layer.input_layernorm(inner.embed_tokens(ids))
        turns = inner.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
        query, key = (
            projection(hidden).unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *turns)
    reading = readings[0][0]
    torch.testing.assert_close(reading.query, query[0])
    torch.testing.assert_close(reading.key, key[0])
    assert reading.scaling == layer.self_attn.scaling


def test_every_layer_is_read_once_and_in_order(tiny, readings):
    layers = list(range(tiny.model.config.num_hidden_layers))
    for of_passage in readings:
        assert [reading.layer for reading in of_passage] == layers


def test_the_model_is_left_unchanged(tiny, passages):
    before = tiny.model.config._attn_implementation
    read_attention(tiny, passages[0], lambda reading: None)
    assert tiny.model.config._attn_implementation == before


def test_sliding_window_layers_are_skipped(build_model):
    config = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    read = []
    passage = Passage(token_ids=list(range(20)), question_start=20)
    read_attention(build_model(config), passage, lambda one: read.append(one.layer))
    assert read == [1]
