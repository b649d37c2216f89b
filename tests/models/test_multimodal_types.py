"""Every multimodal type of transformers is measured or refused as docs/models.md says."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from zoo_multimodal import NOT_TRIED, multimodal_types

ROOT = Path(__file__).resolve().parents[2]


def table_module() -> Any:
    path = ROOT / "docs/figures/model_types.py"
    spec = importlib.util.spec_from_file_location("model_types", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = table_module()
EXPECTED: dict[str, str] = TABLE.documented("multimodal types")


def test_the_table_has_every_multimodal_type_once() -> None:
    assert sorted(EXPECTED) == sorted(multimodal_types())


@pytest.mark.parametrize("model_type", sorted(set(EXPECTED) - set(NOT_TRIED)))
def test_a_checkpoint_of_each_multimodal_type_loads_or_is_refused_as_documented(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing passed before.
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    assert TABLE.verdict(model_type, tmp_path / "model") == EXPECTED[model_type]
