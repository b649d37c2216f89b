"""The micro metric logger, which decides what to measure before anything is computed."""

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


@dataclass(frozen=True, kw_only=True)
class HeadValues:
    """A value with those of the heads that it is the mean of."""

    mean: Tensor
    heads: Tensor
    """One value per query head or key-value head."""


Value = float | int | str | bool | list[Any] | dict[str, Any] | Tensor | HeadValues

_current: ContextVar["MicroMetricLogger | None"] = ContextVar("micro_metric_logger", default=None)


class EvenSampling:
    """Draws a share of a stream: every item with the same probability, evenly spread.

    One item is drawn out of each block of ⌊1 / share⌋, so that with a share of 0.1 each ten
    consecutive items have one. Where 1 / share is not a whole number, some blocks have none.
    """

    def __init__(self, share: float, random_numbers: random.Random) -> None:
        """Begin a stream; `share` is in [0, 1]."""
        self._share = share
        self._random = random_numbers
        self._left = 0
        """Items of the block to come."""
        self._drawn: int | None = None
        """The drawn item of the block, counted from its end."""

    def draw(self, items: int) -> list[int]:
        """Return which of the next items are drawn, counted from 0."""
        return [item for item in range(items) if self._draws_next()]

    def _draws_next(self) -> bool:
        if self._share in (0, 1):
            return self._share == 1
        if self._left == 0:
            self._left = int(1 / self._share)
            has_one = self._random.random() < self._share * self._left
            self._drawn = self._random.randrange(self._left) if has_one else None
        self._left -= 1
        return self._left == self._drawn


@dataclass
class ExampleRecords:
    """The logger's state for one example."""

    sampling: EvenSampling
    choosing: random.Random
    """Chooses the records to keep where there are more than the example's share."""
    metadata: dict[str, Any]
    is_kept: bool = True
    """Whether its records are written; not if they are already, and it is only decoded again."""
    takes_turns: bool = False
    """Whether it is answered at the same time as others: then its records wait for its end, so that
    they are together in the file."""
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    """Measured values of each query by metric, whether or not a record of them is kept."""
    kept: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Records with their numbers, written when the example ends."""
    offered: int = 0
    """Number of records, kept or not."""

    def place(self, limit: int) -> int | None:
        """Return where in `kept` the next record belongs, or None if it is not kept.

        Each record is kept with the same probability (Vitter's algorithm R).
        """
        self.offered += 1
        if len(self.kept) < limit:
            return len(self.kept)
        place = self.choosing.randrange(self.offered)
        return place if place < limit else None


class MicroMetricLogger:
    """Samples the micro metrics of one arm and writes them to one file.

    What is measured is drawn with the probability `sampling_factor`, evenly from each example.
    This is decided before a value is computed, so pass a function where it is expensive. The
    examples share `max_records` equally: where one has more, its records are chosen at random, and
    means still include all values that were measured.

    Any code may log to the arm at work: `MicroMetricLogger.current().log(...)`. Without an arm
    at work, `current` is a logger with nothing enabled. Metrics must be registered before a
    configuration enables them.

    With a limit, or if several examples are answered at the same time, records are written when
    their example ends; otherwise a timer writes pending records, even if nothing more is logged.
    Log from one thread at a time.
    """

    _registered: ClassVar[dict[str, type]] = {}

    def __init__(
        self,
        file: RecordFile | None = None,
        enabled_metrics: frozenset[str] = frozenset(),
        *,
        max_records: int | None = None,
        sampling_factor: float = 1.0,
        per_head: bool = False,
        seed: int = 0,
    ) -> None:
        """Make a logger; `MetricLogging.logger` checks its settings.

        Args:
            file: where records go; None only if no metric is enabled.
            enabled_metrics: registered names.
            max_records: maximum number of records in the file; None means unlimited.
            sampling_factor: share of the items to measure, in [0, 1].
            per_head: whether attention metrics log the values of the heads beside their mean.
            seed: seed of the sampling; `begin_example` derives from it.
        """
        self._file = file
        self._enabled = enabled_metrics
        self._max_records = max_records
        self._records_of_each = max_records
        self._sampling_factor = sampling_factor
        self.per_head = per_head
        self._seed = seed
        self.example = self._records_of(None)
        """State of the current example; before the first one, that of no example."""

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

    def divide_records(self, examples: int) -> None:
        """Give each of the experiment's examples an equal share of the records."""
        if self._max_records is not None:
            self._records_of_each = self._max_records // max(1, examples)

    def begin_example(
        self, example_id: str, *, is_kept: bool = True, takes_turns: bool = False
    ) -> ExampleRecords:
        """Begin an example: its id is added to its records, and it is sampled independently.

        What is measured of it does not depend on the examples before it.

        Args:
            example_id: of the example.
            is_kept: whether its records are written.
            takes_turns: whether it is answered at the same time as others.

        Returns:
            The state to pass to `resume_example` when examples take turns.
        """
        self.example = self._records_of(example_id)
        self.example.is_kept, self.example.takes_turns = is_kept, takes_turns
        return self.example

    def resume_example(self, example: ExampleRecords) -> None:
        """Continue an example that was begun before."""
        self.example = example

    def end_example(self) -> None:
        """Queue the kept records of the current example, in order, for the next flush."""
        kept = sorted(self.example.kept, key=lambda numbered: numbered[0])
        self.example.kept = []
        for _, record in kept:
            self._append(record)

    def _records_of(self, example_id: str | None) -> ExampleRecords:
        purposes = ("micro_metrics", "kept_records")
        sampling, choosing = (
            random.Random(derive(self._seed, purpose, example_id or "")) for purpose in purposes
        )
        return ExampleRecords(
            EvenSampling(self._sampling_factor, sampling),
            choosing,
            {} if example_id is None else {"example_id": example_id},
        )

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
        """Write pending records, those of the current example too, and log nothing more.

        Records that cannot be written are dropped, as the file may later belong to another
        process.
        """
        try:
            self.end_example()
            self.flush()
        finally:
            self._enabled = frozenset()
            if self._file is not None:
                self._file.close()
            self._file = None

    def is_enabled(self, metric: str) -> bool:
        """Whether a metric is enabled."""
        return metric in self._enabled

    def draw(self, items: int = 1) -> list[int]:
        """Return which of the next items, such as queries, to measure, counted from 0.

        None of them if no metric is enabled. For metrics that are measured together, call it once.
        """
        return self.example.sampling.draw(items) if self._enabled else []

    def log(
        self,
        metric: str,
        value: Value | Callable[[], Value],
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record a metric if it is enabled and drawn, within the example's share of records.

        Args:
            metric: a registered name; a disabled one costs only a look-up.
            value: the value, or a function that is called only if the record is kept. A tensor
                stays on its device until the flush and must not be changed in place before.
            metadata: layer_idx, step and the like; the example's id is added.

        Returns:
            Whether the record was kept; a later one of the example may take its place.
        """
        if metric not in self._enabled or not self.draw():
            return False
        return self._offer(metric, value, metadata, _location(sys._getframe(1)))

    def log_drawn(
        self,
        metric: str,
        value: Value | Callable[[], Value],
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Do the same as `log` for what `draw` has drawn."""
        if metric not in self._enabled:
            return False
        return self._offer(metric, value, metadata, _location(sys._getframe(1)))

    def flush(self) -> None:
        """Write pending records."""
        if self._file is not None:
            self._file.flush()

    def _offer(
        self,
        metric: str,
        value: Value | Callable[[], Value],
        metadata: Mapping[str, Any] | None,
        location: str,
    ) -> bool:
        limit, example = self._records_of_each, self.example
        if not example.is_kept:
            return False
        place = None
        if limit is not None or example.takes_turns:
            place = example.place(sys.maxsize if limit is None else limit)
            if place is None:
                return False
        if callable(value):
            value = value()
        heads = {}
        if isinstance(value, HeadValues):
            heads = {"heads": value.heads.detach()}
            value = value.mean
        if isinstance(value, Tensor):
            value = value.detach()
        record = {
            "timestamp": datetime.now(UTC).isoformat(),
            "metric": metric,
            "value": value,
            **heads,
            "metadata": {**example.metadata, **(metadata or {})},
            "location": location,
        }
        if place is None:
            self._append(record)
        else:
            example.kept[place : place + 1] = [(example.offered, record)]
        return True

    def _append(self, record: dict[str, Any]) -> None:
        assert self._file is not None, "a logger with enabled metrics has a file"
        self._file.append(record)


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
