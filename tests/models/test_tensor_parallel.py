"""A model that is split over two processes answers as one process does, and never hangs."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import split_types
import torch
from omegaconf import open_dict
from presets import EVICTING, PREFILLING, REWRITING, SELECTING
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    GPT2Config,
    JambaConfig,
    LlamaConfig,
)

from sah.errors import ConfigurationError
from sah.execution.attempts import compute_arms
from sah.models.hub import HubModel
from sah.models.tensor_parallel import plan as split_plan
from sah.models.tensor_parallel.others import ProcessEnded
from sah.models.tensor_parallel.plan import SplitPlan
from sah.models.tiny import TinyModel
from sah.results import directory, fingerprint

pytestmark = pytest.mark.usefixtures("calibrated")

PRESETS = ["dense", *SELECTING, *EVICTING, *REWRITING, *PREFILLING]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The tiny model in a folder, as a checkpoint."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = TinyModel(layers=3).load()
    model.model.save_pretrained(folder)
    model.prompts.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def answers(saved, compose, composed, tmp_path):
    """Answer questions under every preset, in one job; returns what is stored of each answer."""

    def run(processes):
        base = compose(
            "model=hf",
            "model.name=tiny",
            f"model.name_or_path={saved}",
            f"model.tensor_parallel={processes}",
            "benchmark=mock",
            "benchmark.limit=1",
            "generation.max_new_tokens=3",
            f"output_root={tmp_path / str(processes)}",
        )
        configs = {}
        for name in PRESETS:
            configs[name] = base.copy()
            configs[name].sparse_attention = composed(f"sparse_attention={name}")
        ended = compute_arms([(config, []) for config in configs.values()])
        assert [one.error for one in ended] == [None] * len(PRESETS)
        return {
            name: [
                timeless(json.loads(line))
                for line in (directory(config) / "predictions.jsonl").read_text().splitlines()
            ]
            for name, config in configs.items()
        }

    return run


def timeless(answer):
    return {
        name: value
        for name, value in answer.items()
        if name not in ("fingerprint", "checksum") and "seconds" not in name
    }


def test_every_preset_has_the_answers_and_numbers_of_one_process(answers):
    """Sampling presets draw the same numbers: other draws would read other keys."""
    alone, split = answers(1), answers(2)
    for name in PRESETS:
        assert len(split[name]) == 1
        for one, other in zip(split[name], alone[name], strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                if isinstance(value, float):
                    # Sums of parts round differently.
                    assert value == pytest.approx(other[key], rel=1e-3, abs=1e-5), (name, key)
                else:
                    assert value == other[key], (name, key)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model of three heads, which two processes cannot share evenly, alone and split."""
    folder = tmp_path_factory.mktemp("models") / "odd"
    model = TinyModel(heads=3, key_value_heads=3).load()
    model.model.save_pretrained(folder)
    model.prompts.tokenizer.save_pretrained(folder)
    alone, split = (
        HubModel(name="odd", name_or_path=str(folder), tensor_parallel=processes).load()
        for processes in (1, 2)
    )
    yield alone, split
    split.model.processes.close("the tests are over")


IDS = list(range(5, 25))


@torch.inference_mode()
def test_three_heads_over_two_processes_have_the_logits_of_one(odd):
    alone, split = (model.forward(IDS, None, logits=5) for model in odd)
    torch.testing.assert_close(split, alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_projection_outside_of_a_forward_pass_is_that_of_the_whole_model(odd):
    alone, split = (model.model.model.layers[1].self_attn for model in odd)
    states = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(split.q_proj(states), alone.q_proj(states))
    assert torch.equal(split.o_proj.whole_weight(), alone.o_proj.weight)


def test_gradients_are_refused(odd):
    _, split = odd
    with pytest.raises(ConfigurationError, match="tensor_parallel=1 to compute gradients"):
        split.forward(IDS, None, logits=1)


@torch.inference_mode()
def test_after_an_error_of_attention_the_model_can_be_used(odd, monkeypatch):
    alone, split = odd
    expected = split.forward(IDS, None, logits=1)

    def fail(*_, **__):
        raise ConfigurationError("this attention fails")

    with monkeypatch.context() as patch:
        patch.setitem(AttentionInterface._global_mapping, "sdpa", fail)
        with pytest.raises(ConfigurationError, match="this attention fails"):
            split.forward(IDS, None, logits=1)
    assert torch.equal(split.forward(IDS, None, logits=1), expected)
    torch.testing.assert_close(expected, alone.forward(IDS, None, logits=1), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_process_that_is_killed_ends_the_model_with_its_signal(odd):
    """The last test of this model."""
    _, split = odd
    (other,) = split.model.processes.ids
    os.kill(other, signal.SIGKILL)
    assert split.is_usable
    with pytest.raises(ProcessEnded, match=r"process 1 of model.tensor_parallel=2 .* signal 9"):
        split.forward(IDS, None, logits=1)
    assert not split.is_usable
    with pytest.raises(ProcessEnded, match=r"signal 9.*run the command again"):
        split.forward(IDS, None, logits=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 0}, "must be at least 1, or null"),
        ({"tensor_parallel": 2, "device": "cpu"}, "leave model.device=auto"),
        (
            {"tensor_parallel": 2, "model_kwargs": {"device_map": "auto"}},
            "model.model_kwargs.device_map; leave one of them out",
        ),
        (
            {"tensor_parallel": 2, "model_kwargs": {"quantization_config": {}}},
            "model.model_kwargs.quantization_config; leave one of them out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        HubModel(name="any", name_or_path="any", **options)


def plan(config, device="cpu"):
    return SplitPlan.of(AutoModelForCausalLM, config, 2, torch.device(device), "a/b")


def test_a_type_that_was_not_compared_is_refused():
    with pytest.raises(ConfigurationError, match=r"model_type 'gpt2'.*was not compared"):
        plan(GPT2Config(n_layer=1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2Config(n_layer=1), "no tensor-parallel plan for the layers of 'a/b' .GPT2LMHead"),
        (
            JambaConfig(num_hidden_layers=2, attn_layer_period=2, attn_layer_offset=1),
            "only 1 of the 2 layers",
        ),
    ],
)
def test_a_type_that_cannot_be_split_is_refused(config, message, monkeypatch):
    monkeypatch.setattr(split_plan, "COMPARED", {"gpt2", "jamba"})
    with pytest.raises(ConfigurationError, match=message):
        plan(config)


def test_quantised_weights_are_refused():
    config = LlamaConfig(num_hidden_layers=1, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ConfigurationError, match=r"quantised; set model.tensor_parallel=1"):
        plan(config)


def test_too_few_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="needs 2 GPUs, but this process sees 1"):
        plan(LlamaConfig(num_hidden_layers=1), device="cuda")


def test_attention_has_all_heads_in_one_process():
    made = plan(LlamaConfig(num_hidden_layers=2))
    assert made.changes == {
        "model.layers.*.self_attn.q_proj": "colwise_gather_output",
        "model.layers.*.self_attn.k_proj": "colwise_gather_output",
        "model.layers.*.self_attn.v_proj": "colwise_gather_output",
        "model.layers.*.self_attn.o_proj": "rowwise_split_input",
    }
    assert made.outputs == tuple(f"model.layers.{layer}.self_attn.o_proj" for layer in range(2))


# Experts, shared latent keys, linear attention.
@pytest.mark.parametrize("model_type", ["mixtral", "deepseek_v3", "qwen3_next"])
def test_a_split_model_of_each_kind_has_the_logits_of_a_whole_one(model_type, tmp_path):
    assert split_types.difference(model_type, tmp_path) < split_types.LIMIT


def test_the_types_in_the_documentation_are_those_that_were_compared():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- split types -->")[2].partition("<!--")[0]
    assert set(re.findall("`(.+?)`", listed)) == split_plan.COMPARED


def test_the_number_of_processes_identifies_an_experiment_and_none_does_not(compose):
    config = compose("model=smollm2", "model.content=null")
    old, two = config.copy(), config.copy()
    with open_dict(old):
        del old.model.tensor_parallel
    two.model.tensor_parallel = 2
    assert fingerprint(config) == fingerprint(old) != fingerprint(two)
