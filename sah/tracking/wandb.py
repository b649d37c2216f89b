"""Weights & Biases tracker; trackio has the same interface and is local."""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from sah.errors import ConfigurationError
from sah.tracking.record import Record, refuse_empty, require_package


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Logs configuration and final numbers as one wandb run (extras: wandb, trackio)."""

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
        package: Any = importlib.import_module(self.package)
        if self.package == "wandb" or not hasattr(package, "Api"):
            return False
        try:
            runs = package.Api().runs(self.project)
        except ValueError:
            # There is no such project yet.
            return False
        return any(
            dict(run.config or {}).get("tag/result") == record.tags["result"] for run in runs
        )

    def log(self, record: Record) -> None:
        """Log one result."""
        package: Any = importlib.import_module(self.package)
        config = {**record.settings, **{f"tag/{key}": text for key, text in record.tags.items()}}
        of_wandb = {}
        if self.package == "wandb":
            model, attention, benchmark, _ = record.name.split("/")
            of_wandb = {
                # A result that is sent again is the same wandb run.
                "id": record.tags["result"],
                "resume": "allow",
                "group": self.group or f"{model}/{benchmark}",
                "job_type": self.job_type or attention,
            }
        package.init(project=self.project, name=record.name, config=config, **of_wandb)
        try:
            package.log(dict(record.numbers))
        finally:
            package.finish()


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
