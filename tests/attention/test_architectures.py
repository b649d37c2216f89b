"""With every key selected, the sparse code equals each architecture's own attention."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from presets import REWRITING, SELECTING
from small_shape import SMALL
from torch.testing import assert_close
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sah.attention import DenseAttention, SparseAttention
from sah.attention.prefill.reading import SparsePrefill, reading
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.maskers.causal import Causal
from sah.maskers.local import Local
from sah.maskers.sink import Sink
from sah.models.eviction import evicted
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.patterns.a_shape import AShape

Build = Callable[..., LanguageModel]

CONF = Path(__file__).resolve().parents[2] / "conf"
# Without a compacted cache, all presets that only evict or rewrite are the same.
PRESETS = [*SELECTING, "snapkv", *REWRITING]

ALTERNATING = ["sliding_attention", "full_attention"]
CONTEXT = [2 + (7 * n) % 390 for n in range(40)]
QUESTION = [5 + (11 * n) % 380 for n in range(9)]


def mistral(sliding_window: int | None) -> PreTrainedConfig:
    return MistralConfig(**SMALL, sliding_window=sliding_window)


def gpt_oss() -> PreTrainedConfig:
    return GptOssConfig(
        **SMALL,
        sliding_window=8,
        layer_types=ALTERNATING,
        num_local_experts=2,
        num_experts_per_tok=1,
    )


# Configuration, its reference attention implementation, and its sparse layers.
MODELS: dict[str, tuple[Callable[[], PreTrainedConfig], str, set[int]]] = {
    "llama": (lambda: LlamaConfig(**SMALL), "sdpa", {0, 1}),
    "mistral": (lambda: mistral(None), "sdpa", {0, 1}),
    "qwen2": (lambda: Qwen2Config(**SMALL), "sdpa", {0, 1}),
    "qwen3": (lambda: Qwen3Config(**SMALL), "sdpa", {0, 1}),
    "gemma2": (
        lambda: Gemma2Config(
            **SMALL,
            sliding_window=8,
            layer_types=ALTERNATING,
            attn_logit_softcapping=3.0,
            query_pre_attn_scalar=5,
        ),
        "eager",
        {1},
    ),
    "gemma3": (
        lambda: Gemma3TextConfig(
            **SMALL, sliding_window=8, layer_types=ALTERNATING, query_pre_attn_scalar=5
        ),
        "sdpa",
        {1},
    ),
    "gpt_oss": (gpt_oss, "eager", {1}),
}


@pytest.fixture(scope="module", params=MODELS)
def architecture(request: pytest.FixtureRequest, build_model: Build) -> tuple[Any, set[int]]:
    config, attention, sparse_layers = MODELS[request.param]
    model = build_model(config(), attention=attention)
    # Attention sinks are initialised to zero or not at all; give them values that matter.
    for number, layer in enumerate(model.model.model.layers):
        if hasattr(layer.self_attn, "sinks"):
            layer.self_attn.sinks.data = torch.linspace(-1, 2 + number, 4)
    return model, sparse_layers


def causal(**options: Any) -> SparseAttention:
    return SparseAttention(name="causal", maskers={"all": Causal()}, **options)


def logits(model: LanguageModel, ids: list[int], **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        output = model.model(input_ids=torch.tensor([ids]), **options).logits
    return output  # type: ignore[no-any-return]


def answer(model: LanguageModel, attention: Any, new_tokens: int = 12) -> list[int]:
    witness = getattr(attention, "witness", None)
    context = model.prefill(CONTEXT, reserve_tokens=30, witness=witness)
    if witness is not None:
        context = evicted(context, attention, model.model.config, seed=0)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length, context.kept)
    session.begin_example("one")
    return model.answer(
        context,
        QUESTION,
        session=session,
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=new_tokens,
    ).token_ids


@pytest.mark.parametrize("dense_layers", [[], [1], [0, 1]])
@pytest.mark.parametrize("length", [5, 40])
def test_reading_every_key_gives_the_model_s_own_logits(
    length: int, dense_layers: list[int], architecture: tuple[Any, set[int]]
) -> None:
    model, _ = architecture
    expected = logits(model, CONTEXT[:length])
    with AttentionSession(causal(dense_layers=dense_layers), seed=0).attached(model.model):
        assert_close(logits(model, CONTEXT[:length]), expected, atol=1e-4, rtol=0)


def test_reading_every_key_gives_the_model_s_own_answer(
    architecture: tuple[Any, set[int]],
) -> None:
    model, _ = architecture
    dense = answer(model, DenseAttention())
    assert answer(model, causal()) == dense
    assert len(dense) > 0


def read_by(model: LanguageModel, pattern: Any, dense_layers: frozenset[int]) -> torch.Tensor:
    """Return the logits of the context under a pattern."""
    sparse = SparsePrefill(pattern=pattern, dense_layers=dense_layers)
    with reading(model.model, sparse):
        return logits(model, CONTEXT)


@pytest.mark.parametrize("dense_layers", [(), (1,)])
def test_a_pattern_reads_what_maskers_of_the_same_keys_read(
    dense_layers: tuple[int, ...], architecture: tuple[Any, set[int]]
) -> None:
    model, _ = architecture
    maskers = {"sink": Sink(tokens=3), "local": Local(tokens=7)}
    masked = SparseAttention(name="masked", maskers=maskers, dense_layers=dense_layers)
    with AttentionSession(masked, seed=0).attached(model.model):
        expected = logits(model, CONTEXT)
    found = read_by(model, AShape(sinks=3, window=7), frozenset(dense_layers))
    assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_pattern_that_reads_everything_is_the_model_s_own_attention(
    architecture: tuple[Any, set[int]],
) -> None:
    model, _ = architecture
    own = model.model.config._attn_implementation
    found = read_by(model, AShape(sinks=0, window=len(CONTEXT)), frozenset())
    assert_close(found, logits(model, CONTEXT), atol=1e-5, rtol=0)
    assert model.model.config._attn_implementation == own


# Parameters that make a masker read every key; the first set that it has applies.
FULL_BUDGETS: tuple[dict[str, Any], ...] = (
    {"fraction": 1.0},
    {"p": 1.0},
    {"base_fraction": 1.0},
    # MagicPIG has no budget, but with 255 tables of one plane it misses no key at any angle.
    {"planes": 1, "tables": 255, "min_collisions": 1},
    {"tokens": 200},
)


@pytest.fixture(scope="module")
def with_full_budget(composed: Callable[..., DictConfig]) -> Callable[[str], SparseAttention]:
    """Return a preset for all layers that keeps all keys and whose last masker reads them."""

    @cache
    def make(preset: str) -> SparseAttention:
        config = copy.deepcopy(composed(f"sparse_attention={preset}"))
        with open_dict(config):
            config.dense_layers = []
            for name, masker in config.maskers.items():
                if name in ("sink", "local"):
                    masker.tokens = 2
            for evictor in config.get("evict", {}).values():
                evictor.update(tokens=None, fraction=1.0)
            for rewriter in config.get("rewrite", {}).values():
                rewriter.update({"fraction": 1.0} if "fraction" in rewriter else {"bits": 16})
                if "residual" in rewriter:
                    rewriter.residual = 4
            for name in list(config.maskers)[-1:]:
                masker = config.maskers[name]
                masker.update(next(full for full in FULL_BUDGETS if set(full) <= set(masker)))
        attention: SparseAttention = instantiate(config, _convert_="all")
        return attention

    return make


@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_with_a_full_budget_gives_the_model_s_own_logits_and_answer(
    name: str,
    architecture: tuple[Any, set[int]],
    with_full_budget: Callable[[str], SparseAttention],
) -> None:
    model, sparse_layers = architecture
    densities: list[float] = []
    layers = set()

    def observe(inputs: Any, mask: Any, output: torch.Tensor) -> None:
        densities.append(float(mask.density().min()))
        layers.add(inputs.layer_idx)

    attention = with_full_budget(name)
    session = AttentionSession(attention, seed=0, observers=(observe,))
    session.begin_example("one")
    with session.attached(model.model):
        found = logits(model, CONTEXT)
    assert_close(found, logits(model, CONTEXT), atol=1e-4, rtol=0)
    assert layers == sparse_layers
    assert set(densities) == {1.0}
    assert answer(model, attention, 5) == answer(model, DenseAttention(), 5)


def test_sliding_window_layers_keep_the_model_s_attention_and_the_others_are_sparse(
    architecture: tuple[Any, set[int]],
) -> None:
    model, sparse_layers = architecture
    observed = set()
    session = AttentionSession(
        SparseAttention(name="local", maskers={"local": Local(tokens=4)}),
        seed=0,
        observers=(lambda inputs, mask, output: observed.add(inputs.layer_idx),),
    )
    session.begin_example("one")
    with session.attached(model.model):
        windowed = logits(model, CONTEXT)
    assert observed == sparse_layers
    # Sliding-window layers do not count.
    expected = sum(min(visible, 4) / visible for visible in range(1, 41)) / 40
    assert session.density() == pytest.approx(expected, rel=1e-5)
    assert (windowed - logits(model, CONTEXT)).abs().max() > 1e-2


def test_density_of_a_model_with_sliding_windows_only_is_an_error(build_model: Build) -> None:
    model = build_model(mistral(8))
    session = AttentionSession(causal(), seed=0)
    session.begin_example("one")
    expected = logits(model, CONTEXT)
    with session.attached(model.model):
        assert_close(logits(model, CONTEXT), expected, atol=1e-4, rtol=0)
    with pytest.raises(ConfigurationError, match="all layers are local"):
        session.density()


@pytest.mark.parametrize("name", ["softcap", "sinks"])
def test_softcap_and_sinks_change_what_these_tests_compare(name: str, build_model: Build) -> None:
    if name == "softcap":
        config, attention, _ = MODELS["gemma2"]
        model = build_model(config(), attention=attention)
        before = logits(model, CONTEXT)
        for layer in model.model.model.layers:
            layer.self_attn.attn_logit_softcapping = None
    else:
        model = build_model(gpt_oss(), attention="eager")
        for layer in model.model.model.layers:
            layer.self_attn.sinks.data.fill_(2.0)
        before = logits(model, CONTEXT)
        for layer in model.model.model.layers:
            layer.self_attn.sinks.data.fill_(-100.0)
    assert (logits(model, CONTEXT) - before).abs().max() > 1e-2
