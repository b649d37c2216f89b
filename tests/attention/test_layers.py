"""The kinds of layers come from the configuration, whatever a layer tells its attention."""

from typing import Any

import pytest
from transformers import (
    DeepseekV32Config,
    Gemma3TextConfig,
    JambaConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PhimoeConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
)
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4Model
from zoo import small_config

from sah.attention.layers import (
    attention_layers,
    full_attention_layers,
    indexed_layers,
    selecting_layers,
)

SLIDING, FULL = "sliding_attention", "full_attention"
FOUR: dict[str, Any] = {"num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("config", "full", "attention"),
    [
        (LlamaConfig(**FOUR), {0, 1, 2, 3}, {0, 1, 2, 3}),
        (MistralConfig(**FOUR, sliding_window=8), set(), {0, 1, 2, 3}),
        (PhimoeConfig(**FOUR, sliding_window=8), set(), {0, 1, 2, 3}),
        (
            Gemma3TextConfig(**FOUR, layer_types=[SLIDING, FULL, SLIDING, FULL]),
            {1, 3},
            {0, 1, 2, 3},
        ),
        (
            Qwen2MoeConfig(**FOUR, sliding_window=8, use_sliding_window=True, max_window_layers=2),
            # Every second of the first two.
            {1, 2, 3},
            {0, 1, 2, 3},
        ),
        # Three chunked layers, then one without positions that attends to all.
        (Llama4TextConfig(**FOUR), {3}, {0, 1, 2, 3}),
        (JambaConfig(**FOUR, attn_layer_period=4, attn_layer_offset=1), {1}, {1}),
    ],
    ids=["llama", "mistral", "phimoe", "gemma3", "qwen2_moe", "llama4", "jamba"],
)
def test_kinds_of_layers(config: PreTrainedConfig, full: set[int], attention: set[int]) -> None:
    assert full_attention_layers(config) == full
    assert attention_layers(config) == attention
    assert selecting_layers(config) == ()


def test_layers_with_an_indexer_attend_to_every_token_without_it() -> None:
    config = DeepseekV32Config(**FOUR)
    assert indexed_layers(config) == full_attention_layers(config) == {0, 1, 2, 3}
    assert selecting_layers(config) == ()
    assert indexed_layers(LlamaConfig(**FOUR)) == set()


def test_layers_that_compress_keys_themselves_are_told_apart() -> None:
    # Its kinds of layers are known to transformers once the model's code is imported.
    assert DeepseekV4Model is not None
    config = small_config("deepseek_v4")
    assert indexed_layers(config) == full_attention_layers(config) == set()
    compressed = ("compressed_sparse_attention", "heavily_compressed_attention")
    assert selecting_layers(config) == compressed
