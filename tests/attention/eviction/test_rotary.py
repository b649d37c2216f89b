"""The rotary embedding as it is recorded while a model reads.

With one token repeated, every key of a layer is the same before the rotation, whatever the
architecture, and every query is.
"""

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from zoo import small_model

from sah.attention.eviction.rotary import FutureQueries
from sah.attention.eviction.witness import Witness
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

NEXT = FutureQueries(skip=2, positions=16)
ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}

# Halves or interleaved, whole or partial, scaled, by layer kind, with and without a bias or norm.
ROTATING: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", **ROPE}}),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", **ROPE}}),
    "qwen2": ("qwen2", {}),
    "gemma3": ("gemma3_text", {}),
    "glm4": ("glm4", {}),
    "gpt_neox": ("gpt_neox", {}),
    "phi3": ("phi3", {}),
}


def loaded(model_type: str, **values: Any) -> LanguageModel:
    return LanguageModel(small_model(model_type, **values), PromptEncoder(tiny_tokenizer(), None))


def read(model: LanguageModel, tokens: int, witness: Witness) -> PrefilledContext:
    """Read a repeated token; the sequence may reach 600 tokens, whatever its length."""
    return model.prefill([7] * tokens, reserve_tokens=600 - tokens, witness=witness)


@pytest.mark.parametrize("name", ROTATING)
def test_keys_before_the_rotation_and_moments_of_future_queries_are_right(name: str) -> None:
    model_type, values = ROTATING[name]
    model = loaded(model_type, **values)
    context = read(model, 40, Witness(rotary=True, future=frozenset({NEXT})))
    later = read(model, 56, Witness(last_queries=16))
    assert context.witnessed
    for number, witnessed in context.witnessed.items():
        key = context.cache.layers[number].keys[:, :, :40]
        rotary, moments = witnessed.rotary, witnessed.future[NEXT]
        assert rotary is not None
        unrotated = rotary.undo(key)
        assert not torch.allclose(key, key[:, :, :1], atol=0.1)
        size = unrotated.abs().max()
        assert_close(
            unrotated / size, (unrotated[:, :, :1] / size).expand(key.shape), atol=1e-5, rtol=0
        )
        expected = later.witnessed[number].queries.mean(2)
        assert_close(moments.mean, expected, atol=1e-5, rtol=1e-4)
        assert moments.covariance.abs().max() < 1e-6 * expected.square().max()


@pytest.mark.parametrize("model_type", ["cohere2", "gpt2"])
def test_layers_without_a_rotary_embedding_are_left_as_they_are(model_type: str) -> None:
    context = read(loaded(model_type), 40, Witness(rotary=True, last_queries=40))
    for number, witnessed in context.witnessed.items():
        key = context.cache.layers[number].keys[:, :, :40]
        assert witnessed.rotary is not None
        assert torch.equal(witnessed.rotary.undo(key), key)


@pytest.mark.parametrize("model_type", ["deepseek_v2", "deepseek_v3", "diffllama", "gemma4_text"])
def test_a_rotation_that_is_not_of_whole_queries_is_unknown(model_type: str) -> None:
    context = read(loaded(model_type), 40, Witness(rotary=True, future=frozenset({NEXT})))
    assert context.witnessed
    for witnessed in context.witnessed.values():
        assert witnessed.rotary is None
        assert not witnessed.future


def test_covariance_of_future_queries_is_that_of_the_counted_ones(tiny: LanguageModel) -> None:
    ids = [1 + 7 * n % 389 for n in range(60)]
    one_ahead = FutureQueries(skip=10, positions=1)
    context = tiny.prefill(
        ids, reserve_tokens=0, witness=Witness(future=frozenset({one_ahead}), last_queries=60)
    )
    moments = context.witnessed[0].future[one_ahead]
    # A rotation changes no trace; the last queries are rotated.
    queries = context.witnessed[0].queries[0, :, 10:]
    squares = queries.square().sum(-1).mean(-1)
    total = moments.covariance[0].diagonal(dim1=1, dim2=2).sum(-1) + moments.mean[0].square().sum(
        -1
    )
    assert_close(total, squares)


def test_recording_restores_the_model_and_its_code(tiny: LanguageModel) -> None:
    from transformers.models.llama import modeling_llama

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in tiny.model.modules())

    # transformers leaves some of its own, once hidden states were asked for.
    before, hooked = modeling_llama.apply_rotary_pos_emb, hooks()
    tiny.prefill([1, 2, 3], reserve_tokens=0, witness=Witness(rotary=True))
    assert modeling_llama.apply_rotary_pos_emb is before
    assert hooks() == hooked
