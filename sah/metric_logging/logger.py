"""The micro metric logger, which decides whether to keep a record before its value is computed."""

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import CodeType, FrameType
from typing import Any, ClassVar, Literal

from torch import Tensor

from sah.metric_logging.record_file import RecordFile
from sah.seeding import derive

Value = float | int | str | bool | list[Any] | dict[str, Any] | Tensor

_current: ContextVar["MicroMetricLogger | None"] = ContextVar("micro_metric_logger", default=None)


@dataclass
class ExampleRecords:
    """The logger's state for one example: its sampling, its metadata and its sums."""

    drawing: random.Random
    metadata: dict[str, Any]
    sums: dict[str, tuple[Tensor | float, int]] = field(default_factory=dict)


class MicroMetricLogger:
    """Samples the micro metrics of one arm and writes them to one file.

    A record is kept if its metric is enabled, the record limit is not reached and it is drawn
    with the probability `sampling_factor`. This is decided before the value is computed, so pass
    a function where the value is expensive.

    Any code may log to the arm at work: `MicroMetricLogger.current().log(...)`. Without an arm
    at work, `current` is a logger with nothing enabled. Metrics must be registered before a
    configuration enables them.

    A timer writes pending records, even if nothing more is logged. Log from one thread at a time.
    """

    _registered: ClassVar[dict[str, type]] = {}

    def __init__(
        self,
        file: RecordFile | None = None,
        enabled_metrics: frozenset[str] = frozenset(),
        *,
        max_records: int | None = None,
        sampling_factor: float = 1.0,
        seed: int = 0,
        records_logged: int = 0,
    ) -> None:
        """Make a logger; `MetricLogging.logger` checks its settings.

        Args:
            file: where records go; None only if no metric is enabled.
            enabled_metrics: registered names.
            max_records: maximum number of records in the file; None means unlimited.
            sampling_factor: expected share of the records to keep, in [0, 1].
            seed: seed of the sampling; `begin_example` derives from it.
            records_logged: records that the file already holds, after a resume.
        """
        self._file = file
        self._enabled = enabled_metrics
        self._max_records = max_records
        self._sampling_factor = sampling_factor
        self._seed = seed
        self._records = records_logged
        self._example = ExampleRecords(random.Random(seed), {})

    @classmethod
    def register_metric(cls, name: str, value_type: type) -> None:
        """Make a metric known to every logger of this process.

        Raises:
            ValueError: if the name is registered with another type.
        """
        known = cls._registered.setdefault(name, value_type)
        if known is not value_type:
            raise ValueError(
                f"metric {name!r} is already registered with type {known.__name__}, "
                f"not {value_type.__name__}"
            )

    @classmethod
    def enabled_names(cls, enabled_metrics: Sequence[str] | Literal["all"]) -> frozenset[str]:
        """Return the given names; "all" stands for every metric registered so far.

        Raises:
            ValueError: if a name is not registered; lists those that are.
        """
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

    def begin_example(self, example_id: str) -> ExampleRecords:
        """Begin an example: its id is added to its records, and it is sampled independently.

        Which of its records are kept does not depend on the examples before it.

        Returns:
            The state to pass to `resume_example` when examples take turns.
        """
        drawing = random.Random(derive(self._seed, "micro_metrics", example_id))
        self._example = ExampleRecords(drawing, {"example_id": example_id})
        return self._example

    def resume_example(self, example: ExampleRecords) -> None:
        """Continue an example that was begun before."""
        self._example = example

    @contextmanager
    def as_current(self) -> Iterator["MicroMetricLogger"]:
        """Make `current` return this logger inside the with block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    @classmethod
    def current(cls) -> "MicroMetricLogger":
        """Return the logger of the arm at work, or a disabled one if there is none."""
        return _current.get() or _DISABLED

    def close(self) -> None:
        """Write pending records, and log nothing more.

        Records that cannot be written are dropped, as the file may later belong to another
        process.
        """
        try:
            self.flush()
        finally:
            self._enabled = frozenset()
            if self._file is not None:
                self._file.close()
            self._file = None

    def log(
        self,
        metric: str,
        value: Value | Callable[[], Value],
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record a metric if it is enabled, the limit is not reached, and it is drawn.

        Args:
            metric: a registered name; a disabled one costs only a look-up.
            value: the value, or a function that is called only if the record is kept. A tensor
                stays on its device until the flush and must not be changed in place before.
            metadata: layer_idx, step and the like; the example's id is added.

        Returns:
            Whether the record was kept.
        """
        if metric not in self._enabled or self._is_full():
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
            "metadata": {**self._example.metadata, **(metadata or {})},
            "location": _location(sys._getframe(1)),
        }
        self._add_to_sum(metric, value)
        self._records += 1
        assert self._file is not None, "a logger with enabled metrics has a file"
        self._file.append(record)
        return True

    def flush(self) -> None:
        """Write pending records."""
        if self._file is not None:
            self._file.flush()

    def example_mean(self, metric: str) -> float | None:
        """Return the mean over this example's records; None if there are none or it is NaN."""
        total, count = self._example.sums.get(metric, (0.0, 0))
        # NaN and infinity are null in the file; a resumed arm must read the same mean from there.
        mean = float(total) / count if count else None
        return mean if mean is not None and math.isfinite(mean) else None

    def _is_full(self) -> bool:
        return self._max_records is not None and self._records >= self._max_records

    def _add_to_sum(self, metric: str, value: Any) -> None:
        if self._registered[metric] is not float:
            return
        total, count = self._example.sums.get(metric, (0.0, 0))
        self._example.sums[metric] = (total + value, count + 1)


_DISABLED = MicroMetricLogger()

_locations: dict[tuple[str, CodeType], str] = {}


def _location(frame: FrameType) -> str:
    """Return module.Class.method or module.function of a frame, cached by its code."""
    module = str(frame.f_globals.get("__name__", "?"))
    key = (module, frame.f_code)
    if key not in _locations:
        # A function inside a method counts as the method.
        name = frame.f_code.co_qualname.split(".<locals>")[0]
        _locations[key] = f"{module}.{name}"
    return _locations[key]
