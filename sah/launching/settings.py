"""Settings of the local and the SLURM launcher, in one schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sah.errors import ConfigurationError
from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class LauncherSettings:
    """What conf/hydra/launcher/local.yaml and slurm.yaml describe.

    Keys that only the other launcher uses are accepted and ignored, so that a study switches
    between the two with one word.
    """

    gpus_per_job: int = 1
    max_concurrent: int | None = None
    timeout_min: float | None = None
    grace_seconds: float = 10.0
    poll_seconds: float = 0.5
    gpus: list[int | str] | None = None
    cpu_workers: int = 1
    cpus_per_job: int | None = None
    mem_gb: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    max_num_timeout: int = 10
    signal_delay_s: int = 120
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)
    down_minutes: float = 30.0
    detach: bool = False
    keep_model: bool = True
    bundles_per_job: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("gpus_per_job", "cpu_workers"):
            self._at_least(name, 0 if name == "gpus_per_job" else 1)
        for name in ("max_concurrent", "cpus_per_job", "mem_gb", "bundles_per_job"):
            self._at_least(name, 1)
        for name in ("max_num_timeout", "signal_delay_s"):
            self._at_least(name, 0)
        for name in ("timeout_min", "poll_seconds", "down_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"hydra.launcher.{name} must be positive, got {value}")
        self._at_least("grace_seconds", 0)

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ConfigurationError(f"hydra.launcher.{name} must be at least {least}, got {value}")
