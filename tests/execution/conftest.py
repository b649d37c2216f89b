"""Compute an experiment in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from sah.execution.attempts import compute
from sah.results import directory
from sah.results.schema import Result


@pytest.fixture
def start(configure: Callable[..., DictConfig]) -> Callable[..., tuple[Result, Path]]:
    """Compute an experiment; returns its result and its directory."""

    def run(*overrides: str, root: str = "outputs") -> tuple[Result, Path]:
        config = configure(*overrides, root=root)
        return compute(config, list(overrides)), directory(config)

    return run
