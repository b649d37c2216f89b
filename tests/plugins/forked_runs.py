"""Fixtures that run `run.py` in forks of one process: `runs` and `run`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


class Runs:
    """Processes forked from one that has imported everything: fork_server.py."""

    def __init__(self) -> None:
        # For a model that the chaos tests configure.
        paths = [str(TESTS / "chaos"), os.environ.get("PYTHONPATH", "")]
        self.server = subprocess.Popen(
            [sys.executable, str(TESTS / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def start(
        self,
        folder: Path,
        *arguments: str,
        program: str = str(ROOT / "run.py"),
        arms: tuple[tuple[str, ...], ...] = (),
        log: Path | None = None,
        errors: Path | None = None,
        environment: dict[str, str] | None = None,
        cpu_seconds: int | None = None,
    ) -> int:
        """Start run.py, or the arms of one job, in a folder; return the process id.

        Args:
            folder: the working directory.
            arguments: of the program.
            program: run.py, `sah`, or a Python file.
            arms: overrides of each arm, instead of arguments.
            log: for output; nowhere if None.
            errors: for stderr; the log if None.
            environment: changes to the environment that no import reads.
            cpu_seconds: limits CPU time, and memory too.
        """
        output = str(log or os.devnull)
        return self._ask(
            folder=str(folder),
            program=program,
            arguments=arguments,
            arms=arms,
            output=output,
            errors=str(errors or output),
            environment=environment or {},
            cpu_seconds=cpu_seconds,
        )

    def wait(self, process: int) -> int:
        """Wait for the end; the exit status is -n where signal n killed it."""
        # Not in the server, which must stay usable if this test is stopped by its time limit.
        while not self.has_ended(process):
            time.sleep(0.002)
        return self._ask(wait=process)

    def run(self, folder: Path, *arguments: str, **options: Any) -> int:
        """Run to the end."""
        process = self.start(folder, *arguments, **options)
        try:
            return self.wait(process)
        except BaseException:
            os.kill(process, signal.SIGKILL)
            raise

    def stop(
        self,
        process: int,
        number: signal.Signals,
        when: Callable[[], bool],
        look_every_seconds: float = 0.0005,
    ) -> bool:
        """Send a signal once a condition holds; return False if the process ended before."""
        while not self.has_ended(process):
            if when():
                os.kill(process, number)
                return True
            time.sleep(look_every_seconds)
        return False

    @staticmethod
    def has_ended(process: int) -> bool:
        """Whether the process has ended and only its exit status is left."""
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"

    def _ask(self, **request: Any) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """Start run.py in a fraction of a second."""
    running = Runs()
    yield running
    assert running.server.stdin is not None
    running.server.stdin.close()
    running.server.wait()


@pytest.fixture
def run(
    runs: Runs, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call run.py, with results under tmp_path / "outputs".

    `environment` adds to the environment. Where imports read it, run.py is not forked but started.
    """
    log, errors = (tmp_path_factory.mktemp("run") / name for name in ("stdout", "stderr"))

    def call(
        *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = environment or {}
        if environment.keys() & {"HF_HOME", "PYTHONPATH"}:
            return subprocess.run(
                [sys.executable, str(ROOT / "run.py"), *arguments],
                cwd=tmp_path,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
            )
        log.unlink(missing_ok=True)
        errors.unlink(missing_ok=True)
        status = runs.run(tmp_path, *arguments, log=log, errors=errors, environment=environment)
        return subprocess.CompletedProcess(arguments, status, log.read_text(), errors.read_text())

    return call
