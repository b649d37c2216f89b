"""The record that a tracker receives, and the call that keeps its failures harmless."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sah.paths import sanitise
from sah.results.schema import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one experiment, for a tracker."""

    name: str
    """model/attention/benchmark/fingerprint."""
    directory: Path
    settings: Mapping[str, str | int | float | bool]
    """The resolved configuration with dotted keys."""
    numbers: Mapping[str, float]
    """Scores and measurements; what was not measured is left out."""
    tags: Mapping[str, str]

    @classmethod
    def from_result(cls, result: Result) -> "Record":
        """Convert a result."""
        # Trackers make folders of these names.
        names = [sanitise(name) for name in (result.model, result.attention, result.benchmark)]
        provenance = result.provenance
        return cls(
            name="/".join([*names, result.fingerprint]),
            directory=result.directory,
            settings=dict(_flat(result.config, "")),
            numbers=dict(_numbers(asdict(result), "")),
            tags={
                "fingerprint": result.fingerprint,
                "git_commit": str(provenance.git_commit),
                "host": str(provenance.host),
                "device": str(provenance.device),
                "directory": str(result.directory),
            },
        )


class Tracker(Protocol):
    """Receives a copy of every finished result."""

    def log(self, record: Record) -> None:
        """Store the record; any exception is only logged."""


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """The default: no tracker."""

    def log(self, record: Record) -> None:
        """Do nothing."""


def track(config: DictConfig, result: Result) -> None:
    """Log a result with the configured tracker; failures are only logged.

    Results are on disk before this is called, so a tracker that is missing, unreachable or
    broken costs a warning, never the experiment.
    """
    chosen = OmegaConf.select(config, "tracker")
    if chosen is None:
        return
    try:
        tracker: Tracker = instantiate(chosen)
        tracker.log(Record.from_result(result))
    except Exception as error:  # noqa: BLE001 (third-party code on which nothing depends)
        # Hydra wraps exceptions of constructors.
        cause = error.__cause__ or error
        logger.warning(
            "the tracker did not accept the result (%s: %s); it is complete in %s",
            *(type(cause).__name__, cause, result.directory),
        )


_TRACKED = ("timing", "tasks", "dense_agreement", "index_bytes", "sampled")


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            if prefix.startswith("tasks") or name in _TRACKED:
                yield from _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "schema":
            yield name, float(value)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str | int | float | bool):
        yield path, value
    elif value is not None:
        yield path, str(value)
