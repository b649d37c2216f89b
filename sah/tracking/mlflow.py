"""MLflow tracker: one MLflow run per experiment (extra: mlflow)."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from sah.errors import ConfigurationError
from sah.tracking.record import LiveRun, Record, refuse_empty, require_package

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """Logs parameters, metrics and tags, but no files; live numbers while an experiment runs."""

    uri: str | None = None
    """A server, sqlite:///FILE or file:FOLDER; None: MLFLOW_TRACKING_URI or MLflow's default."""
    experiment: str = "sah"

    def __post_init__(self) -> None:
        refuse_empty(self)

    def check(self) -> None:
        """Check that MLflow is installed, its store can be written, and the experiment exists.

        Raises:
            ConfigurationError: if not; MLflow's own errors pass.
        """
        require_package("mlflow", "mlflow")
        client = self._client()
        _require_reachable(str(client.tracking_uri))
        known = client.get_experiment_by_name(self.experiment)
        if known is not None and known.lifecycle_stage == "deleted":
            raise ConfigurationError(
                f"the MLflow experiment {self.experiment!r} is deleted; restore it, or choose "
                "another with tracker.experiment=NAME"
            )

    def has(self, record: Record) -> bool:
        """Whether a finished MLflow run has the tag of this result."""
        client = self._client()
        known = client.get_experiment_by_name(self.experiment)
        if known is None:
            return False
        condition = f"tags.result = '{record.tags['result']}' and attributes.status = 'FINISHED'"
        return bool(client.search_runs([known.experiment_id], condition, max_results=1))

    def open(self, record: Record) -> LiveRun:
        """Begin the run of an experiment, or continue the one that is not finished."""
        from mlflow.entities import Param

        client = self._client()
        number = self._experiment_id(client)
        condition = f"tags.run = '{record.run}' and attributes.status != 'FINISHED'"
        found = client.search_runs([number], condition, max_results=1)
        if found:
            (run,) = found
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = client.create_run(number, run_name=record.name, tags=dict(record.tags))
        # MLflow refuses to change parameters, and an earlier start may have had another folder.
        settings = [
            Param(key, str(value)[:6000])
            for key, value in record.settings.items()
            if key not in run.data.params
        ]
        # MLflow accepts at most 100 parameters and 1,000 metrics at once.
        for start in range(0, len(settings), 100):
            client.log_batch(run.info.run_id, params=settings[start : start + 100])
        return _Run(client=client, number=run.info.run_id)

    def log(self, record: Record) -> None:
        """Log one result."""
        self.open(record).finish(record)

    def _experiment_id(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        known = client.get_experiment_by_name(self.experiment)
        if known is None:
            try:
                return str(client.create_experiment(self.experiment))
            except MlflowException:
                # Another arm or job may have made it just now.
                known = client.get_experiment_by_name(self.experiment)
                if known is None:
                    raise
        return str(known.experiment_id)

    def _client(self) -> "MlflowClient":
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


@dataclass(frozen=True, kw_only=True)
class _Run:
    client: "MlflowClient"
    number: str

    def advance(self, numbers: Mapping[str, float], done: int) -> None:
        self._log(numbers, done)

    def finish(self, record: Record) -> None:
        from mlflow.entities import RunTag

        self._log(record.numbers, 0)
        tags = [RunTag(name, text) for name, text in record.tags.items()]
        self.client.log_batch(self.number, tags=tags)
        # Last: only a run that has everything counts as logged.
        self.client.set_terminated(self.number)

    def stop(self) -> None:
        self.client.set_terminated(self.number, status="KILLED")

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in numbers.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.number, metrics=metrics[start : start + 1000])


def _require_reachable(uri: str) -> None:
    """Check a store without MLflow, which retries a server for minutes and only reads a file.

    Raises:
        ConfigurationError: if the server does not answer, or the file cannot be written.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.scheme not in getproxies():
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        try:
            socket.create_connection(address, timeout=_PATIENCE_SECONDS).close()
        except OSError as error:
            raise ConfigurationError(f"tracker.uri={uri} does not answer: {error}") from error
    elif parts.scheme in ("", "file", "sqlite"):
        path = parts.path.removeprefix("/") if parts.scheme == "sqlite" else parts.path
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise ConfigurationError(f"tracker.uri={uri}: cannot write to {path!r}")


def _allowed(name: str) -> str:
    """Replace characters that MLflow does not allow in names of metrics."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
