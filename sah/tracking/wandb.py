"""Weights & Biases tracker; trackio has the same interface and is local."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sah.errors import ConfigurationError
from sah.tracking.record import LiveRun, Record, refuse_empty, require_package


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Logs configuration, live and final numbers as one wandb run (extras: wandb, trackio)."""

    project: str = "sah"
    package: Literal["wandb", "trackio"] = "wandb"
    group: str | None = None
    """wandb's group of a run; None: MODEL/BENCHMARK, so that a group compares attentions."""
    job_type: str | None = None
    """wandb's job type of a run; None: the attention."""

    def __post_init__(self) -> None:
        refuse_empty(self)
        if self.package == "trackio" and (self.group, self.job_type) != (None, None):
            raise ValueError("group and job_type are of wandb; leave them out for trackio")

    def check(self) -> None:
        """Check that the package is installed and, for wandb, that results can be sent or kept.

        Raises:
            ConfigurationError: if not; wandb's own errors pass, such as that of a wrong key.
        """
        require_package(self.package, self.package)
        if self.package == "wandb":
            _require_login(importlib.import_module("wandb"))

    def has(self, record: Record) -> bool:
        """Whether trackio has a run of this result; unknown for wandb, which replaces it."""
        return self._has_tag("result", record.tags["result"])

    def open(self, record: Record) -> LiveRun:
        """Begin the run of an experiment, or continue the one that an earlier start began."""
        return _Run(tracker=self, run=self._begun(record))

    def log(self, record: Record) -> None:
        """Log one result."""
        _end(self._begun(record), record)

    def _begun(self, record: Record) -> Any:
        options: dict[str, Any] = {"resume": "allow"}
        if self.package == "wandb":
            model, attention, benchmark, _ = record.name.split("/")
            options |= {
                "id": record.run,
                "group": self.group or f"{model}/{benchmark}",
                "job_type": self.job_type or attention,
                # Arms of a job have runs at the same time, whose output cannot be told apart.
                "reinit": "create_new",
                "settings": {"console": "off"},
            }
        elif not self._has_tag("run", record.run):
            # trackio continues the last run of a name, which may be an earlier computation.
            options["resume"] = "never"
        return importlib.import_module(self.package).init(
            project=self.project, name=record.name, config=_config(record), **options
        )

    def _has_tag(self, name: str, text: str) -> bool:
        package: Any = importlib.import_module(self.package)
        if self.package == "wandb" or not hasattr(package, "Api"):
            return False
        try:
            runs = package.Api().runs(self.project)
        except ValueError:
            # There is no such project yet.
            return False
        return any(dict(run.config or {}).get(f"tag/{name}") == text for run in runs)


@dataclass(frozen=True, kw_only=True)
class _Run:
    tracker: WandbTracker
    run: Any

    def advance(self, numbers: Mapping[str, float], done: int) -> None:
        self.run.log(dict(numbers), step=done)

    def finish(self, record: Record) -> None:
        if self.tracker.package == "wandb":
            self.run.config.update(_config(record), allow_val_change=True)
            _end(self.run, record)
        else:
            # trackio stores the configuration when a run begins or is continued.
            self.run.finish()
            self.tracker.log(record)

    def stop(self) -> None:
        if self.tracker.package == "wandb":
            self.run.finish(exit_code=1)
        else:
            self.run.finish()


def _config(record: Record) -> dict[str, Any]:
    return {**record.settings, **{f"tag/{name}": text for name, text in record.tags.items()}}


def _end(run: Any, record: Record) -> None:
    try:
        run.log(dict(record.numbers))
    finally:
        run.finish()


def _require_login(wandb: Any) -> None:
    mode = wandb.setup().settings.mode
    if mode == "disabled":
        raise ConfigurationError("WANDB_MODE=disabled stores nothing; set it to online or offline")
    if mode in ("offline", "dryrun"):
        return
    try:
        is_known = wandb.login(prompt=False)
    except TypeError:
        # Older versions have no `prompt`; their login would wait for an answer.
        is_known = wandb.api.api_key is not None
    if not is_known:
        raise ConfigurationError(
            "wandb has no API key here; run `wandb login`, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline and send the files later with `wandb sync`"
        )
