"""Context, question and answer are rotated alike, also by embeddings that depend on the length."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, Phi3Config, PhimoeConfig, PreTrainedConfig

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext

Build = Callable[..., LanguageModel]

SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 1,
}
ORIGINAL = 64
"""Tokens up to which the short factors hold."""

IDS = [2 + (7 * n) % 390 for n in range(200)]


def phi3() -> PreTrainedConfig:
    # Short and long factors of a head of 8 dimensions.
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [4.0, 5.0, 6.0, 7.0],
        "original_max_position_embeddings": ORIGINAL,
    }
    return Phi3Config(**SMALL, rope_parameters=rope, original_max_position_embeddings=ORIGINAL)


def phimoe() -> PreTrainedConfig:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [4.0, 5.0, 6.0, 7.0],
        "short_mscale": 1.1,
        "long_mscale": 1.4,
        "original_max_position_embeddings": ORIGINAL,
    }
    return PhimoeConfig(**SMALL, rope_parameters=rope, num_local_experts=2, sliding_window=None)


def dynamic() -> PreTrainedConfig:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    return LlamaConfig(**(SMALL | {"max_position_embeddings": ORIGINAL}), rope_parameters=rope)


@pytest.fixture(params=[phi3, phimoe, dynamic])
def model(request: pytest.FixtureRequest, build_model: Build) -> LanguageModel:
    return build_model(request.param())


def whole(model: LanguageModel, tokens: int) -> torch.Tensor:
    """The last token's logits of one forward pass, as `generate` computes a prompt's."""
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([IDS[:tokens]]), use_cache=False).logits[:, -1]


def dense() -> AttentionSession:
    return AttentionSession(DenseAttention(), seed=0)


def question_logits(model: LanguageModel, context: PrefilledContext, tokens: int) -> torch.Tensor:
    ids = IDS[context.length : tokens]
    _, logits = model.read_question(context, ids, session=dense(), dense_question=True)
    context.cache.rewind()
    return logits


@pytest.mark.parametrize(
    ("context", "tokens"),
    [(40, 60), (60, ORIGINAL), (60, ORIGINAL + 1), (40, 120), (100, 130)],
    ids=["below", "up to it", "one beyond", "across", "above"],
)
def test_a_question_after_a_context_has_the_logits_of_the_whole_prompt(
    context: int, tokens: int, model: LanguageModel
) -> None:
    prefilled = model.prefill(IDS[:context], reserve_tokens=tokens - context)
    expected = whole(model, tokens)
    assert_close(question_logits(model, prefilled, tokens), expected, atol=1e-4, rtol=0)


def test_the_factors_matter_in_these_models(model: LanguageModel) -> None:
    """Without one rule for the whole sequence, the logits across the length are others."""
    prefilled = model.prefill(IDS[:60], reserve_tokens=0)
    split = question_logits(model, prefilled, 100)
    assert (split - whole(model, 100)).abs().max() > 0.05


def test_another_context_in_between_changes_nothing(model: LanguageModel) -> None:
    short = model.prefill(IDS[:70], reserve_tokens=10)
    before = question_logits(model, short, 80)
    long = model.prefill(IDS[:150], reserve_tokens=50)
    question_logits(model, long, 200)
    assert torch.equal(question_logits(model, short, 80), before)
    assert torch.equal(
        question_logits(model, model.prefill(IDS[:70], reserve_tokens=10), 80), before
    )


def test_the_answer_s_limit_decides_from_the_start(model: LanguageModel) -> None:
    """Every token of an answer that may cross the length has the logits of one long pass."""
    new_tokens = 30
    prefilled = model.prefill(IDS[:50], reserve_tokens=10 + new_tokens)
    answer = model.answer(
        prefilled,
        IDS[50:60],
        session=dense(),
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=new_tokens,
    )
    assert len(answer.token_ids) == new_tokens
    ids = torch.tensor([[*IDS[:60], *answer.token_ids]])
    with torch.inference_mode():
        logits = model.model(input_ids=ids, use_cache=False).logits[0]
    assert logits[59:-1].argmax(-1).tolist() == answer.token_ids


def test_a_model_with_fixed_frequencies_is_left_alone(tiny: LanguageModel) -> None:
    embedding = tiny.model.model.rotary_emb
    with tiny.rope.of_length(10):
        assert not embedding._forward_hooks
        assert not embedding._forward_pre_hooks


def test_the_hooks_are_removed(model: LanguageModel) -> None:
    embedding = model.model.model.rotary_emb
    with model.rope.of_length(10):
        assert embedding._forward_hooks
    assert not embedding._forward_hooks
    assert not embedding._forward_pre_hooks
