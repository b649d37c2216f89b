"""MLflow tracker: one MLflow run per experiment (extra: mlflow)."""

import time
from dataclasses import dataclass

from sah.tracking.record import Record


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """Logs parameters, metrics and tags, but no files."""

    uri: str | None = None
    """A server, sqlite:///FILE or file:FOLDER; None: MLFLOW_TRACKING_URI or MLflow's default."""
    experiment: str = "sah"

    def log(self, record: Record) -> None:
        """Log one result."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        known = client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else client.create_experiment(self.experiment)
        run = client.create_run(number, run_name=record.name)
        now = int(1000 * time.time())
        # MLflow accepts at most 100 parameters and 1,000 metrics at once.
        settings = [Param(key, str(value)[:6000]) for key, value in record.settings.items()]
        for start in range(0, len(settings), 100):
            client.log_batch(run.info.run_id, params=settings[start : start + 100])
        metrics = [Metric(_allowed(name), value, now, 0) for name, value in record.numbers.items()]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])
        tags = [RunTag(name, text) for name, text in record.tags.items()]
        client.log_batch(run.info.run_id, tags=tags)
        client.set_terminated(run.info.run_id)


def _allowed(name: str) -> str:
    """Replace characters that MLflow does not allow in names of metrics."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
