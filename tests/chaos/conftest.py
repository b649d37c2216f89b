"""How much chaos there is, runs that can be stopped at any moment, and what a run leaves behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from sah.execution.attempts import compute
from sah.results import directory

HERE = Path(__file__).parent

# A few moments in the usual tests, a hundred in `make chaos`, which prints its seed.
MOMENTS = int(os.environ.get("SAH_CHAOS_MOMENTS", "3"))
SEED = int(os.environ.get("SAH_CHAOS_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

_DEADLINE_SECONDS = 240.0

Outcome = dict[str, dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        # A sweep takes as long as thirty runs.
        is_slow = metafunc.definition.get_closest_marker("slow") is not None
        few = is_slow and "SAH_CHAOS_MOMENTS" not in os.environ
        metafunc.parametrize("moment", range(1 if few else MOMENTS))


@pytest.fixture
def drawing(request: pytest.FixtureRequest) -> random.Random:
    """Draws what happens in this test; the same for the same seed."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def number(moment: int) -> signal.Signals:
    """The signal of this moment; each has its turn."""
    return SIGNALS[moment % len(SIGNALS)]


class Runs:
    """Runs of sah as processes, each started in a fraction of a second."""

    def __init__(self) -> None:
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        self.server = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def start(
        self,
        folder: Path,
        *arguments: str,
        arms: tuple[tuple[str, ...], ...] = (),
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Start run.py, or the arms of one job, in a folder; return the process id."""
        return self._ask(
            folder=str(folder),
            arguments=arguments,
            arms=arms,
            log=str(log or os.devnull),
            environment=environment or {},
        )

    def wait(self, process: int) -> int:
        """Wait for the end; the exit status is -n where signal n killed it."""
        return self._ask(wait=process)

    def run(self, folder: Path, *arguments: str, **options: Any) -> int:
        """Run to the end."""
        return self.wait(self.start(folder, *arguments, **options))

    def stop(
        self,
        process: int,
        number: signal.Signals,
        when: Callable[[], bool],
        look_every_seconds: float = 0.0005,
    ) -> bool:
        """Send a signal once something is so; False if the process ended before."""
        end = time.monotonic() + _DEADLINE_SECONDS
        while not has_ended(process):
            if when():
                os.kill(process, number)
                return True
            assert time.monotonic() < end, f"process {process} neither ends nor comes so far"
            time.sleep(look_every_seconds)
        return False

    def _ask(self, **request: Any) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """Start runs; what is left of them ends with the tests."""
    running = Runs()
    yield running
    assert running.server.stdin is not None
    running.server.stdin.close()
    running.server.wait(timeout=60)


def has_ended(process: int) -> bool:
    """Whether it waits for nothing but being waited for."""
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"


@pytest.fixture(scope="session")
def how_far() -> Callable[[int], float]:
    """CPU seconds of a process: unlike the time, the same on a busy machine."""
    return lambda process: int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


@pytest.fixture(scope="session")
def outcome(outcome: Callable[[Path], dict[str, Any]]) -> Callable[[Path], Outcome]:
    """What `outcome` reads, of all complete experiments below a folder."""

    def read(root: Path) -> Outcome:
        complete = (path.parent for path in root.glob("outputs/*/*/*/*/results.json"))
        return {str(folder.relative_to(root)): outcome(folder) for folder in complete}

    return read


@pytest.fixture(scope="session")
def answered() -> Callable[[Path], dict[Path, bytes]]:
    """The whole lines of every predictions.jsonl below a folder."""

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
