"""Tiny random checkpoints in a Hub cache, under the names of the real models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123abcd" * 5


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Hub cache that holds llama and mistral."""
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    from sah.models.tiny import randomize, tiny_tokenizer

    home = tmp_path_factory.mktemp("hub")
    tokenizer = tiny_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    models: dict[str, Any] = {
        "llama": LlamaForCausalLM(LlamaConfig(**shape)),
        "mistral": MistralForCausalLM(MistralConfig(**shape, sliding_window=None)),
    }
    for seed, (name, model) in enumerate(models.items()):
        randomize(model, seed)
        repository = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml").name_or_path
        folder = home / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        model.save_pretrained(snapshot)
        tokenizer.save_pretrained(snapshot)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def result_folders(tmp_path: Path) -> Callable[[], list[Path]]:
    """The complete experiments below tmp_path / "outputs"."""
    return lambda: sorted(path.parent for path in tmp_path.glob("outputs/*/*/*/*/results.json"))


@pytest.fixture
def answers() -> Callable[[Path], list[dict[str, Any]]]:
    """Read the answers of an experiment without their times and the experiment's fingerprint."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        return [
            {
                key: value
                for key, value in json.loads(line).items()
                if "seconds" not in key and key not in ("fingerprint", "checksum")
            }
            for line in lines
        ]

    return read
