"""Weights & Biases, or trackio, which has the same interface and stays on this machine."""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from sah.tracking.record import Record


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """Logs configuration and final numbers as one run (the extras wandb and trackio)."""

    project: str = "sah"
    package: Literal["wandb", "trackio"] = "wandb"

    def log(self, record: Record) -> None:
        """Log one finished run."""
        package: Any = importlib.import_module(self.package)
        config = {**record.settings, **{f"tag/{key}": text for key, text in record.tags.items()}}
        package.init(project=self.project, name=record.name, config=config)
        try:
            package.log(dict(record.numbers))
        finally:
            package.finish()
