"""Hydra's configuration of a sweep before the first cell is composed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def hydra_loader() -> Iterator[tuple[Any, Any]]:
    """Hydra's loader and the configuration of a sweep without overrides."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", [], RunMode.MULTIRUN, from_shell=False)
