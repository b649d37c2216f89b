"""Suites over made-up rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[3] / "conf" / "benchmark"


@pytest.fixture
def suite(published: Callable[[str], Path]) -> Callable[..., Any]:
    """Make a suite over the made-up rows, with all subsets by default."""

    def make(name: str, **options: Any) -> Any:
        config = OmegaConf.load(CONF / f"{name}.yaml")
        given = {"subset": None, "path": str(published(name)), **options}
        return instantiate(OmegaConf.merge(config, given), _convert_="all")

    return make
