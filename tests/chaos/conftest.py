"""How many disturbances each test makes, and the results that a run leaves."""

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from sah.execution.attempts import compute
from sah.results import directory

HERE = Path(__file__).parent

# Three moments by default, a hundred in `make chaos`, which prints its seed.
MOMENTS = int(os.environ.get("SAH_CHAOS_MOMENTS", "3"))
SEED = int(os.environ.get("SAH_CHAOS_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

Outcome = dict[str, dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        # A sweep takes 30 times as long as a run.
        is_slow = metafunc.definition.get_closest_marker("slow") is not None
        few = is_slow and "SAH_CHAOS_MOMENTS" not in os.environ
        metafunc.parametrize("moment", range(1 if few else MOMENTS))


@pytest.fixture
def drawing(request: pytest.FixtureRequest) -> random.Random:
    """A random generator for this test; the same for the same seed."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def number(moment: int) -> signal.Signals:
    """The signal to send at this moment; the signals take turns."""
    return SIGNALS[moment % len(SIGNALS)]


@pytest.fixture(scope="session")
def how_far() -> Callable[[int], float]:
    """CPU seconds of a process; unlike elapsed time, the same on a busy machine."""
    return lambda process: int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


@pytest.fixture(scope="session")
def outcome(outcome: Callable[[Path], dict[str, Any]]) -> Callable[[Path], Outcome]:
    """Read `outcome` of all complete experiments below a folder."""

    def read(root: Path) -> Outcome:
        complete = (path.parent for path in root.glob("outputs/*/*/*/*/results.json"))
        return {str(folder.relative_to(root)): outcome(folder) for folder in complete}

    return read


@pytest.fixture(scope="session")
def answered() -> Callable[[Path], dict[Path, bytes]]:
    """Read the complete lines of every predictions.jsonl below a folder."""

    def read(root: Path) -> dict[Path, bytes]:
        contents = {path: path.read_bytes() for path in root.glob("outputs/*/*/*/*/predictions.*")}
        return {path: text[: text.rfind(b"\n") + 1] for path, text in contents.items()}

    return read


@pytest.fixture
def configure(configure: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Compose an experiment of the mock benchmark whose output root is in tmp_path."""
    return partial(configure, "model=tiny", "benchmark=mock")


@pytest.fixture
def here(configure: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Compute an experiment in this process; returns its directory."""

    def run(*overrides: str, root: str = "outputs") -> Path:
        config = configure(*overrides, root=root)
        compute(config, list(overrides))
        return Path(directory(config))

    return run
