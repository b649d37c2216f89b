"""Loggers that write to a temporary file, and metrics that exist only during a test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sah.metric_logging import MetricLogging, MicroMetricLogger


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    """The registered metrics, `number` and `vector` among them; restored after the test."""
    names = dict(MicroMetricLogger._registered)
    monkeypatch.setattr(MicroMetricLogger, "_registered", names)
    MicroMetricLogger.register_metric("number", float)
    MicroMetricLogger.register_metric("vector", list)
    handler = signal.getsignal(signal.SIGTERM)
    yield names
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "micro_metrics.jsonl"


@pytest.fixture
def configured(path: Path) -> Iterator[Callable[..., MicroMetricLogger]]:
    """Make loggers that write to `path`; they are closed at the end of the test."""
    made = []

    def make(*, seed: int = 0, **settings: Any) -> MicroMetricLogger:
        logging = MetricLogging(**{"name": "test", "enabled_metrics": "all", **settings})
        made.append(logging.logger(path, seed=seed))
        return made[-1]

    yield make
    for logger in made:
        logger.close()


@pytest.fixture
def records(path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Read the records in the file; every line must be complete."""

    def read() -> list[dict[str, Any]]:
        if not path.exists():
            return []
        content = path.read_bytes()
        assert content == b"" or content.endswith(b"\n")
        return [orjson.loads(line) for line in content.splitlines()]

    return read
