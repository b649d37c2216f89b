"""Every multimodal type of transformers is measured or refused as docs/models.md says."""

from pathlib import Path

import model_types as table
import pytest
from zoo_multimodal import NOT_TRIED, multimodal_types

EXPECTED: dict[str, str] = table.documented("multimodal types")


def test_the_table_has_every_multimodal_type_once() -> None:
    assert sorted(EXPECTED) == sorted(multimodal_types())


@pytest.mark.parametrize("model_type", sorted(set(EXPECTED) - set(NOT_TRIED)))
def test_a_checkpoint_of_each_multimodal_type_loads_or_is_refused_as_documented(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing passed before.
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    assert table.verdict(model_type, tmp_path / "model") == EXPECTED[model_type]
