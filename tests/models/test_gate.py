"""The gate passes what can be measured, and names what is wrong with anything else."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sah.attention.interface import attention_replaced
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.maskers.local import Local
from sah.models import gate, gate_memory
from sah.models.gate import check_model
from sah.models.gate_memory import require_measurable
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel


@pytest.fixture
def llama(tiny: LanguageModel) -> LanguageModel:
    """A copy of the tiny model, to be broken."""
    return LanguageModel(copy.deepcopy(tiny.model), tiny.prompts)


def broken(model: LanguageModel, change: Callable[[dict[str, Any]], None]) -> LanguageModel:
    """Change the arguments of every forward pass of a model; its signature stays."""
    forward = model.model.forward

    def changed(
        input_ids: Any = None,
        past_key_values: Any = None,
        position_ids: Any = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> Any:
        given = {
            "input_ids": input_ids,
            "past_key_values": past_key_values,
            "position_ids": position_ids,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }
        change(given)
        return forward(**given)

    model.model.forward = changed
    return LanguageModel(model.model, model.prompts)


def test_a_model_passes_with_a_density_counted_by_hand(tiny: LanguageModel) -> None:
    messages = dict(gate.checks(tiny))
    assert list(messages) == ["positions", "full budget", "density", "batches"]
    # Queries 57 to 84 see as many keys, and a window of 20 reads 20 of them.
    by_hand = sum(20 / seen for seen in range(57, 85)) / 28
    assert messages["density"].startswith(f"{by_hand:.3f} ")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rounding_of_a_dtype_is_no_fault(dtype: str) -> None:
    check_model(TinyModel(layers=6, dtype=dtype).load())


def test_the_rounding_of_a_quantisation_is_no_fault(llama: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(0)

    def rounded(given: dict[str, Any]) -> None:
        """Weights that differ from pass to pass, as if each pass chose its own int8 columns."""
        for layer in llama.model.model.layers:
            weight = layer.mlp.up_proj.weight.data
            weight.mul_(1 + 0.02 * torch.randn(weight.shape, generator=generator))

    with torch.inference_mode(False):
        noisy = broken(llama, rounded)
    with pytest.raises(ConfigurationError):
        check_model(noisy)
    noisy.model.config.quantization_config = {"quant_method": "bitsandbytes"}
    check_model(noisy)


def test_positions_that_ignore_the_cache_are_found(llama: LanguageModel) -> None:
    def from_zero(given: dict[str, Any]) -> None:
        given["position_ids"] = given["position_ids"] - given["position_ids"].min()

    with pytest.raises(ConfigurationError, match="question after a cached context differ"):
        check_model(broken(llama, from_zero))


def test_a_model_without_a_cache_is_found(llama: LanguageModel) -> None:
    def without_cache(given: dict[str, Any]) -> None:
        given.update(past_key_values=None, use_cache=False)

    with pytest.raises(ConfigurationError, match="question after a cached context differ"):
        check_model(broken(llama, without_cache))


def test_attention_that_is_not_causal_is_found(llama: LanguageModel) -> None:
    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        scores = query @ key.repeat_interleave(2, 1).mT * kwargs["scaling"]
        return (scores.softmax(-1) @ value.repeat_interleave(2, 1)).transpose(1, 2), None

    with (
        attention_replaced(llama.model, attention, lambda **_: None),
        pytest.raises(ConfigurationError, match="depend on the tokens after it"),
    ):
        check_model(llama)


def test_a_cache_that_does_not_rewind_is_found(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.RewindableCache, "rewind", lambda cache: None)
    with pytest.raises(ConfigurationError, match="other logits the second time"):
        check_model(llama)


def test_attention_outside_the_interface_is_found(llama: LanguageModel) -> None:
    for layer in llama.model.model.layers:
        # What architectures do that have an attention function of their own.
        layer.self_attn.config = copy.copy(llama.model.config)
    with pytest.raises(ConfigurationError, match="does not go through transformers' Attention"):
        check_model(llama)


def test_attention_of_only_some_layers_outside_the_interface_is_found(
    llama: LanguageModel,
) -> None:
    llama.model.model.layers[1].self_attn.config = copy.copy(llama.model.config)
    with pytest.raises(
        ConfigurationError, match=r"are \[0, 1\] in its configuration, but call themselves \[0\]"
    ):
        check_model(llama)


def test_sparse_code_that_differs_from_the_model_s_attention_is_found(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_Recent", lambda tokens: Local(tokens=2))
    with pytest.raises(ConfigurationError, match="reads every key differs"):
        check_model(llama)


def test_a_wrong_density_is_found(llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    density = AttentionSession.density
    monkeypatch.setattr(AttentionSession, "density", lambda session: density(session) ** 1.1)
    with pytest.raises(
        ConfigurationError, match=r"the density .* is 0\.2538 where 0\.2875 is right"
    ):
        check_model(llama)


def test_logits_that_are_not_finite_are_found(llama: LanguageModel) -> None:
    llama.model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ConfigurationError, match=r"not finite in torch\.float32; try another"):
        check_model(llama)


def test_code_that_fails_on_a_cached_context_is_named(llama: LanguageModel) -> None:
    def short_only(given: dict[str, Any]) -> None:
        if given["past_key_values"].length > 0:
            raise IndexError("index 5 is out of range")

    with pytest.raises(ConfigurationError, match=r"LlamaForCausalLM \(model type 'llama'\).*Index"):
        check_model(broken(llama, short_only))


def test_memory_is_not_the_model_s_fault(llama: LanguageModel) -> None:
    def full(given: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check_model(broken(llama, full))


def test_a_model_that_passed_is_not_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    checked: list[LanguageModel] = []
    monkeypatch.setattr(gate_memory, "check_model", checked.append)
    for seed in (1, 1, 2, 1):
        TinyModel(weight_seed=seed).load()
    assert len(checked) == 2
    TinyModel(weight_seed=1, dtype="bfloat16").load()
    TinyModel(weight_seed=1, layers=3).load()
    assert len(checked) == 4


def test_a_model_that_failed_is_checked_again(
    llama: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    llama.model.config.is_encoder_decoder = True
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="encoder-decoder"):
            require_measurable(llama)


@pytest.mark.parametrize("changed", ["models/gate.py", "attention/stacked/row_lengths.py"])
def test_a_model_is_checked_again_after_a_change_of_the_code(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
) -> None:
    package = tmp_path / "sah"
    shutil.copytree(Path(gate.__file__).parents[1], package)
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gate_memory, "_PACKAGE", package)
    checked: list[LanguageModel] = []
    monkeypatch.setattr(gate_memory, "check_model", checked.append)
    require_measurable(llama)
    require_measurable(llama)
    assert len(checked) == 1
    with (package / changed).open("a") as file:
        file.write("# changed")
    gate_memory._code.cache_clear()  # as in another process
    require_measurable(llama)
    assert len(checked) == 2


def test_a_cache_that_cannot_be_written_costs_only_the_check(
    llama: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gate").write_text("a file where the folder should be")
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    checked: list[LanguageModel] = []
    monkeypatch.setattr(gate_memory, "check_model", checked.append)
    require_measurable(llama)
    require_measurable(llama)
    assert len(checked) == 2
