"""The logger: decides cheaply what to record, before it is computed."""

import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar, Literal

from torch import Tensor

from sah.metric_logging.record_file import RecordFile
from sah.seeding import derive

Value = float | int | str | bool | list[Any] | dict[str, Any] | Tensor

_current: ContextVar["MicroMetricLogger | None"] = ContextVar("micro_metric_logger", default=None)


@dataclass
class ExampleRecords:
    """What the logger keeps about one example: its draws, its stamp, its sums."""

    drawing: random.Random
    context: dict[str, Any]
    sums: dict[str, tuple[Tensor | float, int]] = field(default_factory=dict)


class MicroMetricLogger:
    """Writes micro metrics of one arm to one file.

    A metric must be registered before it is enabled, and is logged only if it is enabled,
    the record limit is not reached, and the draw of `sampling_factor` says so. That is
    decided before the value is computed: pass a function where the value is expensive.

    Any code may log to the arm that is running: `MicroMetricLogger.current().log(...)`.
    Outside a run that is a logger with nothing enabled.

    Records wait at most `flush_interval` seconds, also while nothing is logged: a timer
    writes them. Log from one thread at a time.
    """

    _registered: ClassVar[dict[str, type]] = {}

    def __init__(self) -> None:
        self._file: RecordFile | None = None
        self._enabled: frozenset[str] = frozenset()
        self._max_records: int | None = None
        self._sampling_factor = 1.0
        self._records = 0
        self._seed = 0
        self._example = ExampleRecords(random.Random(0), {})

    # -- metrics that exist ------------------------------------------------------------

    @classmethod
    def register_metric(cls, name: str, value_type: type) -> None:
        """Make a metric known, for every logger of this process.

        Raises:
            ValueError: if the name is taken by a metric of another type.
        """
        known = cls._registered.setdefault(name, value_type)
        if known is not value_type:
            raise ValueError(
                f"metric {name!r} is registered with type {known.__name__}; "
                f"it cannot be {value_type.__name__} too"
            )

    @classmethod
    def get_registered_metrics(cls) -> dict[str, type]:
        """All metrics by name, with their types."""
        return dict(cls._registered)

    # -- configuration -----------------------------------------------------------------

    def configure_logging(
        self,
        log_path: str | os.PathLike[str],
        enabled_metrics: Iterable[str] | Literal["all"] = "all",
        max_records: int | None = None,
        sampling_factor: float = 1.0,
        flush_every: int = 1000,
        flush_interval: float = 60.0,
        *,
        seed: int = 0,
        records_logged: int = 0,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Set everything anew and start counting records again.

        Records that a previous configuration still held are written to its file first.

        Args:
            log_path: a file; it is appended to. Its folder is made.
            enabled_metrics: names, or "all" for everything registered now.
            max_records: end logging after so many records; None for no end.
            sampling_factor: share of records to keep in expectation, clamped to [0, 1].
            flush_every: write when so many records wait.
            flush_interval: write when the last time was so many seconds ago.
            seed: of the sampling; `begin_example` derives from it.
            records_logged: records that the file already holds, after a resume.
            may_write: asked before each write; where it says no, what waits is dropped.

        Raises:
            ValueError: for an unknown metric, naming the known ones, or a limit below 0.
        """
        enabled = self.check_settings(enabled_metrics, max_records, flush_every, flush_interval)
        self.flush()
        self._enabled = enabled
        self._file = RecordFile(
            Path(log_path),
            flush_every=flush_every,
            flush_interval=flush_interval,
            may_write=may_write,
        )
        self._max_records = max_records
        self._sampling_factor = min(1.0, max(0.0, float(sampling_factor)))
        self._records = records_logged
        self._seed = seed
        self._example = ExampleRecords(random.Random(seed), {})

    @classmethod
    def check_settings(
        cls,
        enabled_metrics: Iterable[str] | Literal["all"],
        max_records: int | None,
        flush_every: int,
        flush_interval: float,
    ) -> frozenset[str]:
        """Check what `configure_logging` takes; return the names of the enabled metrics.

        Raises:
            ValueError: as `configure_logging` does.
        """
        if max_records is not None and max_records < 0:
            raise ValueError(f"max_records must be at least 0 or None, got {max_records}")
        if flush_every < 1:
            raise ValueError(f"flush_every must be at least 1, got {flush_every}")
        if flush_interval <= 0:
            raise ValueError(f"flush_interval must be positive, got {flush_interval}")
        if enabled_metrics == "all":
            return frozenset(cls._registered)
        names = {enabled_metrics} if isinstance(enabled_metrics, str) else set(enabled_metrics)
        unknown = sorted(names - cls._registered.keys())
        if unknown:
            raise ValueError(
                f"unknown metrics {unknown}; known are {sorted(cls._registered)} "
                '(or "all" for all of them)'
            )
        return frozenset(names)

    def begin_example(self, example_id: str) -> "ExampleRecords":
        """Stamp the records that follow with an example, and draw from its own generator.

        What is sampled for an example does not depend on the examples before it.

        Returns:
            What `resume_example` takes, where several examples take turns.
        """
        drawing = random.Random(derive(self._seed, "micro_metrics", example_id))
        self._example = ExampleRecords(drawing, {"example_id": example_id})
        return self._example

    def resume_example(self, example: "ExampleRecords") -> None:
        """Go on with an example that was begun before."""
        self._example = example

    @contextmanager
    def as_current(self) -> Iterator["MicroMetricLogger"]:
        """Make this the logger that `current` returns, inside the with block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    @classmethod
    def current(cls) -> "MicroMetricLogger":
        """The logger of the arm that is running; a disabled one outside a run."""
        return _current.get() or _DISABLED

    def close(self) -> None:
        """Write what waits and log nothing more.

        What cannot be written is dropped: later the file may be another process's.
        """
        try:
            self.flush()
        finally:
            self._enabled = frozenset()
            if self._file is not None:
                self._file.close()
            self._file = None

    # -- logging -----------------------------------------------------------------------

    def log(
        self,
        metric: str,
        value: Value | Callable[[], Value],
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record a metric, unless it is off, the limit is reached, or the draw says no.

        Args:
            metric: a registered name; one that is not enabled costs a look-up.
            value: the value, or a function that computes it once it is decided that the
                record will be kept. A tensor stays on its device until the flush, and must not be
                changed in place before.
            metadata: layer_idx, step and the like; the example's id is added.

        Returns:
            Whether the record was kept.
        """
        if metric not in self._enabled or self.is_max_records_reached():
            return False
        if self._sampling_factor < 1 and self._example.drawing.random() >= self._sampling_factor:
            return False
        if callable(value):
            value = value()
        if isinstance(value, Tensor):
            value = value.detach()
        record = {
            "timestamp": datetime.now(UTC).isoformat(),
            "metric": metric,
            "value": value,
            "metadata": {**self._example.context, **(metadata or {})},
            "location": _location(sys._getframe(1)),
        }
        self._add_to_sum(metric, value)
        self._records += 1
        assert self._file is not None, "only a configured logger has enabled metrics"
        self._file.append(record)
        return True

    def flush(self) -> None:
        """Write what waits."""
        if self._file is not None:
            self._file.flush()

    def example_mean(self, metric: str) -> float | None:
        """Mean of the values recorded for this example; None if there was none, or no number."""
        total, count = self._example.sums.get(metric, (0.0, 0))
        # A file has null for what is not finite: what was just computed and what a resumed
        # run reads back must average to the same.
        mean = float(total) / count if count else None
        return mean if mean is not None and math.isfinite(mean) else None

    def _add_to_sum(self, metric: str, value: Any) -> None:
        if self._registered[metric] is not float:
            return
        total, count = self._example.sums.get(metric, (0.0, 0))
        self._example.sums[metric] = (total + value, count + 1)

    # -- questions ---------------------------------------------------------------------

    def is_metric_enabled(self, metric: str) -> bool:
        """Whether the metric is enabled; the limit and the sampling do not count here."""
        return metric in self._enabled

    def get_enabled_metrics(self) -> frozenset[str]:
        """The enabled metrics."""
        return self._enabled

    def get_total_records_logged(self) -> int:
        """Records kept since logging was configured, waiting ones included."""
        return self._records

    def is_max_records_reached(self) -> bool:
        """Whether logging has ended."""
        return self._max_records is not None and self._records >= self._max_records

    def get_records_remaining(self) -> int | None:
        """Records until logging ends; None without a limit."""
        if self._max_records is None:
            return None
        return max(0, self._max_records - self._records)

    def get_max_records(self) -> int | None:
        """The limit; None without one."""
        return self._max_records

    def get_sampling_factor(self) -> float:
        """Share of records kept in expectation."""
        return self._sampling_factor

    def is_logging_configured(self) -> bool:
        """Whether `configure_logging` was called, and `close` was not."""
        return self._file is not None


_DISABLED = MicroMetricLogger()

_locations: dict[tuple[str, CodeType], str] = {}


def _location(frame: FrameType) -> str:
    """module.Class.method or module.function of a frame, remembered by its code."""
    module = str(frame.f_globals.get("__name__", "?"))
    key = (module, frame.f_code)
    if key not in _locations:
        # A function inside a method is part of the method.
        name = frame.f_code.co_qualname.split(".<locals>")[0]
        _locations[key] = f"{module}.{name}"
    return _locations[key]
