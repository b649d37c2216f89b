"""A logger of its own for every test, and metrics that exist for its time."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sah.metric_logging import MicroMetricLogger


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Metrics `number` and `vector` are known; afterwards the process is as it was."""
    known = MicroMetricLogger.get_registered_metrics()
    monkeypatch.setattr(MicroMetricLogger, "_registered", known)
    MicroMetricLogger.register_metric("number", float)
    MicroMetricLogger.register_metric("vector", list)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "micro_metrics.jsonl"


@pytest.fixture
def configured(path: Path) -> Iterator[Callable[..., MicroMetricLogger]]:
    """Make loggers that write to `path`; what they hold is written at the end of the test."""
    made = []

    def make(**settings: Any) -> MicroMetricLogger:
        logger = MicroMetricLogger()
        logger.configure_logging(path, **settings)
        made.append(logger)
        return logger

    yield make
    for logger in made:
        logger.close()


@pytest.fixture
def records(path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What is in the file by now; every line must be whole."""

    def read() -> list[dict[str, Any]]:
        if not path.exists():
            return []
        content = path.read_bytes()
        assert content == b"" or content.endswith(b"\n")
        return [orjson.loads(line) for line in content.splitlines()]

    return read
