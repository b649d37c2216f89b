"""A folder that cannot be measured ends in one sentence, before the prefill and without results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sah.models.tiny import TinyModel


def quantised(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def without_a_layer(folder: Path) -> None:
    change_config(folder, num_hidden_layers=1)


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (quantised, "'model' is quantised with 'gptq': "),
        (without_a_layer, "the weights of 'model' hold 9 tensors that its config does not"),
        (adapter, "'model' holds an adapter (adapter_config.json, base model 'org/base')"),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused_in_one_sentence(
    damage: Callable[[Path], None], sentence: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    model = TinyModel(device="cpu").load()
    model.model.save_pretrained(folder)
    model.prompts.tokenizer.save_pretrained(folder)
    damage(folder)

    done = run("model=hf", "model.name_or_path=model", "benchmark=mock")

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("model_loading: ")]
    assert sentence in line
    for noise in ("Traceback", "LOAD REPORT", "[transformers]"):
        assert noise not in done.stderr
    (error,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    assert json.loads(error.read_text())["category"] == "model_loading"
    assert not list(tmp_path.glob("outputs/*/*/*/*/predictions.jsonl"))
