"""The digest of a model folder changes with everything that loading reads, and nothing else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sah.content import checkpoint_digest, checkpoints, digests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache directory."""
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_remembered", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `save_pretrained` leaves it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    save_file(
        {f"layer.{number}": torch.zeros(64, 1024) for number in range(8)},
        folder / "model.safetensors",
    )
    return folder


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small weights are sampled, and only by tensor."""
    monkeypatch.setattr(checkpoints, "_SAMPLED", 0)
    monkeypatch.setattr(checkpoints, "_BLOCKS", 1)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_each_text_that_loading_reads_counts(folder, name):
    before = checkpoint_digest(folder)
    (folder / name).write_text('{"a": 1}')
    assert checkpoint_digest(folder) != before


def test_a_readme_and_folders_do_not_count(folder):
    before = checkpoint_digest(folder)
    (folder / "README.md").write_text("A model.")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    assert checkpoint_digest(folder) == before


def test_the_same_files_in_another_folder_are_the_same_model(folder, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    assert checkpoint_digest(moved) == checkpoint_digest(tmp_path / "elsewhere")
    (tmp_path / "latest").symlink_to(moved)
    assert checkpoint_digest(tmp_path / "latest") == checkpoint_digest(moved)


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("changed", range(8))
def test_training_any_tensor_of_large_weights_is_noticed(folder, changed):
    before = checkpoint_digest(folder)
    weights = load_file(folder / "model.safetensors")
    weights[f"layer.{changed}"] = weights[f"layer.{changed}"] + 1e-3
    save_file(weights, folder / "model.safetensors")
    assert checkpoint_digest(folder) != before


@pytest.mark.usefixtures("sampled")
def test_saving_the_same_large_weights_again_changes_nothing(folder):
    before = checkpoint_digest(folder)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert checkpoint_digest(folder) == before


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("content", [b"", b"12345", b"\xff" * 64, b"\x02" + 7 * b"\0" + b"[]"])
def test_weights_that_cannot_be_loaded_still_have_a_digest(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert checkpoint_digest(folder) is not None


def test_a_hub_id_is_no_folder():
    assert checkpoint_digest(Path("org/name")) is None
