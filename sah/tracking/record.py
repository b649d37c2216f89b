"""The record that a tracker receives, and the calls that keep its failures harmless."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sah.errors import ConfigurationError
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
    """`result` is the same for the same result only: not for one that was rescored."""

    @classmethod
    def from_result(cls, result: Result) -> "Record":
        """Convert a result."""
        # Trackers make folders of these names.
        names = [sanitise(name) for name in (result.model, result.attention, result.benchmark)]
        provenance = result.provenance
        finished = (provenance.rescored or {}).get("finished", provenance.finished)
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
                # wandb allows no other characters in the id of a run.
                "result": re.sub("[^0-9A-Za-z-]", "-", f"{result.fingerprint}-{finished}"),
            },
        )


class Tracker(Protocol):
    """Receives a copy of every finished result."""

    def check(self) -> None:
        """Check that records can be stored; called before anything is computed.

        Raises:
            ConfigurationError: naming the key, its value and the way out; any other exception
                counts as one.
        """

    def has(self, record: Record) -> bool:
        """Whether this very result is stored; False if that cannot be known."""

    def log(self, record: Record) -> None:
        """Store the record; after a run, any exception is only logged."""


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """The default: no tracker."""

    def check(self) -> None:
        """Do nothing."""

    def has(self, record: Record) -> bool:
        """Return False."""
        return False

    def log(self, record: Record) -> None:
        """Do nothing."""


def require_working(tracker: Tracker) -> None:
    """Check that a tracker can store results, before anything is computed.

    Raises:
        ConfigurationError: why it cannot, and the way out.
    """
    try:
        tracker.check()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(
            f"{type(tracker).__name__} cannot store results: {reason}; to run without it, leave "
            "out tracker= and send the results later with `sah track FOLDER tracker=NAME`"
        ) from error


def refuse_empty(tracker: Any) -> None:
    """Check that no text of a tracker is empty, which would mean a default.

    Raises:
        ValueError: naming the key.
    """
    for one in fields(tracker):
        value = getattr(tracker, one.name)
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"{one.name} is empty; give it a value, or leave it out")


def require_package(name: str, extra: str) -> None:
    """Check that a package is installed; imports nothing.

    Raises:
        ConfigurationError: if it is not.
    """
    if find_spec(name) is None:
        raise ConfigurationError(f"the package {name} is not installed: pip install 'sah[{extra}]'")


def track(tracker: Tracker, result: Result) -> None:
    """Log a result with a tracker; failures are only logged.

    Results are on disk before this is called, so a tracker that is missing, unreachable or
    broken costs a warning, never the experiment.
    """
    try:
        tracker.log(Record.from_result(result))
    except Exception as error:  # noqa: BLE001 (third-party code on which nothing depends)
        logger.warning(
            "the tracker did not accept the result (%s: %s); it is complete in %s, and `sah track` "
            "sends it later",
            *(type(error).__name__, error, result.directory),
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
