"""Quantised checkpoints load exactly, or say what this machine lacks before weights are read."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoQuantizationConfig

from sah.errors import ModelLoadingError, category
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel

# Quantisers that work on a CPU without a library: they unpack or dequantise.
ON_CPU = {"bitnet", "fp8", "gguf", "mxfp8", "mxfp4", "metal", "sinq", "gemma"}


def load(folder: Path, **options: Any) -> LanguageModel:
    return HubModel(name="mine", name_or_path=str(folder), device="cpu", **options).load()


def quantisation(method: str) -> dict[str, Any]:
    kind, _, bits = method.partition("_")
    if kind == "bitsandbytes":
        return {"quant_method": kind, f"load_in_{bits}": True}
    extra = {"bits": 4} if method in ("gptq", "awq") else {}
    return {"quant_method": method} | extra


@pytest.mark.parametrize("method", sorted(set(AUTO_QUANTIZER_MAPPING) - ON_CPU))
def test_a_quantised_model_that_cannot_be_loaded_here_says_what_is_missing(
    method: str, checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    quantiser = AUTO_QUANTIZER_MAPPING[method]
    try:
        config = AutoQuantizationConfig.from_dict(quantisation(method))
        quantiser(config).validate_environment(device_map={"": "cpu"})
    except (ImportError, RuntimeError, ValueError):
        pass
    else:
        pytest.skip(f"this machine can load {method}")
    edit_json(checkpoint / "config.json", quantization_config=quantisation(method))
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelLoadingError) as caught:
        load(checkpoint)
    message = str(caught.value)
    assert f"is quantised with {quantisation(method)['quant_method']!r}: " in message
    assert "pip install" in message or "GPU" in message or "not supported" in message
    assert category(caught.value) == "model_loading"


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("bitsandbytes_4bit", "bitsandbytes"),
        ("bitsandbytes_8bit", "bitsandbytes"),
        ("awq", "gptqmodel"),
        ("gptq", "optimum"),
        ("compressed-tensors", "compressed-tensors"),
        ("aqlm", "aqlm"),
        ("quanto", "optimum-quanto"),
        ("hqq", "hqq"),
        ("torchao", "torchao"),
        ("quark", "amd-quark"),
        ("auto-round", "auto-round"),
    ],
)
def test_a_quantised_model_names_the_library_to_install(
    method: str, library: str, checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    if find_spec(library.replace("-", "_")):
        pytest.skip(f"{library} is installed")
    edit_json(checkpoint / "config.json", quantization_config=quantisation(method))
    with pytest.raises(ModelLoadingError, match=rf"pip install .*{library}"):
        load(checkpoint)


def test_fp8_weights_are_dequantised_exactly(
    checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    expected = save_as_fp8(checkpoint)
    quantised = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    edit_json(checkpoint / "config.json", quantization_config=quantised)
    loaded = load(checkpoint).model.state_dict()
    for name, weight in expected.items():
        assert torch.equal(loaded[name], weight)


def test_fp8_weights_without_a_quantisation_config_are_refused(checkpoint: Path) -> None:
    # transformers would read the weights and ignore their scales.
    save_as_fp8(checkpoint)
    with pytest.raises(ModelLoadingError, match=r"does not describe .*_proj\.weight_scale_inv"):
        load(checkpoint)


def save_as_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Store projections in FP8 with a scale per block of 32 x 32; return what they stand for."""
    stored, expected = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = expected[name] = weight
        if "_proj" not in name:
            continue
        rows, columns = weight.shape
        blocks = weight.view(rows // 32, 32, columns // 32, 32)
        scale = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
        codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        stored[name] = codes.view(rows, columns)
        stored[f"{name}_scale_inv"] = scale
        expected[name] = (codes.float() * scale[:, None, :, None]).view(rows, columns)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return expected


def test_quantising_while_loading_needs_the_same_library(saved: Path) -> None:
    with pytest.raises(
        ModelLoadingError, match=r"cannot be quantised with 'bitsandbytes'.*pip install"
    ):
        load(saved, model_kwargs={"quantization_config": {"load_in_4bit": True}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "modelopt"}, "'modelopt', which this version of transformers cannot"),
        ({"bits": 4}, "has no quant_method, such as gptq or bitsandbytes"),
        ("int4", "cannot read config.json"),
    ],
)
def test_an_unknown_quantisation_is_refused_instead_of_skipped(
    config: Any, message: str, checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    edit_json(checkpoint / "config.json", quantization_config=config)
    with pytest.raises(ModelLoadingError, match=message):
        load(checkpoint)
