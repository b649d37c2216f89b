"""The config group metric_logging."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sah.metric_logging import metrics  # noqa: F401 (registers the metrics of attention)
from sah.metric_logging.logger import MicroMetricLogger
from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class MetricLogging:
    """Which micro metrics an experiment records, and how many of them."""

    name: str
    enabled_metrics: Sequence[str] | Literal["all"]
    """Names, or "all"; an empty list logs nothing."""
    max_records: int | None = None
    """Logging ends after so many; None for no end."""
    sampling_factor: float = 1.0
    """Share of the records to keep in expectation, in [0, 1]."""
    flush_every: int = 1000
    """Records that wait at most."""
    flush_interval: float = 60.0
    """Seconds that a record waits at most."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.sampling_factor <= 1:
            raise ValueError(
                f"metric_logging.sampling_factor must be in [0, 1], got {self.sampling_factor}"
            )
        MicroMetricLogger.check_settings(
            self.enabled_metrics, self.max_records, self.flush_every, self.flush_interval
        )

    def logger(
        self,
        path: Path,
        *,
        seed: int,
        records_logged: int,
        may_write: Callable[[], bool] = lambda: True,
    ) -> MicroMetricLogger:
        """A configured logger; one without enabled metrics never touches the path.

        The arguments are those of `MicroMetricLogger.configure_logging`.
        """
        micro_metric_logger = MicroMetricLogger()
        if self.enabled_metrics:
            micro_metric_logger.configure_logging(
                path,
                self.enabled_metrics,
                self.max_records,
                self.sampling_factor,
                self.flush_every,
                self.flush_interval,
                seed=seed,
                records_logged=records_logged,
                may_write=may_write,
            )
        return micro_metric_logger
