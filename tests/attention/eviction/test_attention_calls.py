"""What attention layers are called with, recorded while a model reads."""

from typing import Any

import pytest
import torch
from torch import nn
from zoo import small_model

from sah.attention.eviction.attention_calls import AttentionCalls
from sah.attention.eviction.witness import Witness
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

IDS = [1 + 7 * n % 389 for n in range(40)]


def read(model: Any) -> Any:
    loaded = LanguageModel(model, PromptEncoder(tiny_tokenizer(), None))
    return loaded.prefill(IDS, reserve_tokens=0, witness=Witness(calls=True)).witnessed


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "olmo2", "gpt_neox"])
def test_hidden_states_of_each_layer_are_recorded(model_type: str) -> None:
    model = small_model(model_type)
    with torch.inference_mode():
        # The first attention layer reads the embeddings, normalised or not.
        inputs = model.get_input_embeddings()(torch.tensor([IDS]))
    witnessed = read(model)
    assert witnessed
    for one in witnessed.values():
        assert one.call.hidden_states.shape == inputs.shape
        cos, sin = one.call.position_embeddings
        assert cos.shape == sin.shape == (1, len(IDS), cos.shape[-1])
    if model_type == "olmo2":  # it normalises after its attention
        assert torch.equal(witnessed[0].call.hidden_states, inputs)


@pytest.mark.parametrize(
    ("model_type", "values", "serves_all"),
    [
        ("llama", {}, True),
        ("gemma3_text", {}, False),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
            False,
        ),
    ],
)
def test_the_rotary_embedding_is_given_where_one_serves_all_layers_and_lengths(
    model_type: str, values: dict[str, Any], serves_all: bool
) -> None:
    call = next(iter(read(small_model(model_type, **values)).values())).call
    assert (call.rotary is not None) == serves_all


def test_arguments_by_position_are_recorded_and_hooks_are_removed() -> None:
    class Attention(nn.Module):
        def forward(self, hidden_states: Any, other: Any = None) -> Any:
            return hidden_states

    module, hidden = Attention(), torch.ones(1, 2, 3)
    calls = AttentionCalls(module)
    with calls.recorded():
        module(hidden)
        call = calls.take(module, hidden.device)
        assert call is not None
        assert call.hidden_states is hidden
        assert call.position_embeddings is None
        assert calls.take(module, hidden.device) is None
    module(hidden)
    assert calls.take(module, hidden.device) is None
