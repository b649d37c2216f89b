"""The config group metric_logging."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sah.metric_logging.logger import MicroMetricLogger
from sah.metric_logging.metrics import PER_HEAD
from sah.metric_logging.record_file import RecordFile
from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class MetricLogging:
    """Which micro metrics an experiment measures, how often, and how many records it keeps."""

    name: str
    enabled_metrics: Sequence[str] | Literal["all"]
    """Names of metrics, or "all"; an empty list measures nothing."""
    max_records: int | None = None
    """Maximum number of records in micro_metrics.jsonl, shared equally among the examples; null
    means unlimited. Means include what is measured without a record."""
    sampling_factor: float = 1.0
    """Share of the queries of each example that are measured, in [0, 1]; a query counts once in
    each layer, and they are drawn evenly over question, answer and layers."""
    per_head: bool = False
    """Whether every record has the values of the heads (`PER_HEAD`) beside their mean."""
    flush_every: int = 1000
    """Number of pending records at which they are written."""
    flush_interval: float = 60.0
    """Seconds after which pending records are written."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.sampling_factor <= 1:
            raise ValueError(
                f"metric_logging.sampling_factor must be in [0, 1], got {self.sampling_factor}"
            )
        if self.max_records is not None and self.max_records < 0:
            raise ValueError(
                f"metric_logging.max_records must be at least 0 or null, got {self.max_records}"
            )
        if self.flush_every < 1:
            raise ValueError(
                f"metric_logging.flush_every must be at least 1, got {self.flush_every}"
            )
        if not self.flush_interval > 0:
            raise ValueError(
                f"metric_logging.flush_interval must be positive, got {self.flush_interval}"
            )
        enabled = MicroMetricLogger.enabled_names(self.enabled_metrics)
        if self.per_head:
            self._check_per_head(enabled)

    def _check_per_head(self, enabled: frozenset[str]) -> None:
        """Refuse to record heads where no record of an attention metric is kept."""
        if not enabled & PER_HEAD.keys():
            problem = f"enabled_metrics={list(self.enabled_metrics)} has no attention metric"
            way_out = f"enable one of {sorted(PER_HEAD)}"
        elif self.max_records == 0:
            problem, way_out = "max_records=0 keeps no record", "raise max_records"
        elif self.sampling_factor == 0:
            problem, way_out = "sampling_factor=0 measures no query", "raise sampling_factor"
        else:
            return
        raise ValueError(
            f"metric_logging.per_head=true records no head, because {problem}; {way_out}, or "
            "leave per_head false"
        )

    def logger(
        self,
        path: Path,
        *,
        seed: int,
        may_write: Callable[[], bool] = lambda: True,
    ) -> MicroMetricLogger:
        """Return the logger of one arm; without enabled metrics it never touches the path.

        Args:
            path: a JSON Lines file to append to; its folder is created.
            seed: seed of the sampling.
            may_write: called before each write; if it returns False, pending records are dropped.
        """
        enabled = MicroMetricLogger.enabled_names(self.enabled_metrics)
        if not enabled:
            return MicroMetricLogger()
        file = RecordFile(
            path,
            flush_every=self.flush_every,
            flush_interval=self.flush_interval,
            may_write=may_write,
        )
        return MicroMetricLogger(
            file,
            enabled,
            max_records=self.max_records,
            sampling_factor=self.sampling_factor,
            per_head=self.per_head,
            seed=seed,
        )
