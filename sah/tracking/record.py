"""What a tracker is told, and how it is kept from doing harm."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sah.paths import sanitise

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One complete experiment."""

    name: str
    """model/attention/benchmark/fingerprint."""
    directory: Path
    settings: Mapping[str, str | int | float | bool]
    """The resolved configuration, flat."""
    numbers: Mapping[str, float]
    """Scores and measurements of results.json; what was not measured is left out."""
    tags: Mapping[str, str]

    @classmethod
    def from_results(cls, results: Mapping[str, Any], directory: Path) -> "Record":
        """Make a record of what results.json holds."""
        provenance = results.get("provenance", {})
        numbers = {
            key: value
            for part in ("", "timing", "tasks", "dense_agreement", "index_bytes")
            for key, value in _numbers(results if part == "" else results.get(part) or {}, part)
        }
        # Trackers make folders of it.
        names = [sanitise(results.get(key)) for key in ("model", "attention", "benchmark")]
        return cls(
            name="/".join([*names, str(results.get("fingerprint"))]),
            directory=directory,
            settings=dict(_flat(results.get("config", {}), "")),
            numbers=numbers,
            tags={
                "fingerprint": str(results.get("fingerprint")),
                "git_commit": str(provenance.get("git_commit")),
                "host": str(provenance.get("host")),
                "device": str(provenance.get("device")),
                "directory": str(directory),
            },
        )


class Tracker(Protocol):
    """Takes a copy of a finished experiment."""

    def log(self, record: Record) -> None:
        """Keep it; may raise whatever it wants."""


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """The default: results.json is all there is."""

    def log(self, record: Record) -> None:
        """Do nothing."""


def track(config: DictConfig, results: Mapping[str, Any], directory: Path) -> None:
    """Tell the configured tracker about complete results; never fails a run.

    The results are on disk before this is called, and stay the only ones that count: a
    tracker that is not installed, not reachable or broken is a warning.
    """
    chosen = OmegaConf.select(config, "tracker")
    if chosen is None:
        return
    try:
        tracker: Tracker = instantiate(chosen)
        tracker.log(Record.from_results(results, directory))
    except Exception as error:  # noqa: BLE001 (foreign code, and nothing depends on it)
        # Hydra wraps what a constructor raises.
        cause = error.__cause__ or error
        logger.warning(
            "the tracker did not take the results (%s: %s); they are complete in %s",
            *(type(cause).__name__, cause, directory),
        )


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        name = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping) and prefix == "tasks":
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
