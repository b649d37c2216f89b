"""Weights & Biases tracker; trackio has the same interface and is local."""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from sah.tracking.record import Record


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Logs configuration and final numbers as one wandb run (extras: wandb, trackio)."""

    project: str = "sah"
    package: Literal["wandb", "trackio"] = "wandb"

    def log(self, record: Record) -> None:
        """Log one result."""
        package: Any = importlib.import_module(self.package)
        config = {**record.settings, **{f"tag/{key}": text for key, text in record.tags.items()}}
        package.init(project=self.project, name=record.name, config=config)
        try:
            package.log(dict(record.numbers))
        finally:
            package.finish()
