"""What a tracker receives, what it implements, and the checks before an experiment."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sah.errors import ConfigurationError
from sah.paths import sanitise
from sah.results.contents import first_start
from sah.results.schema import Result


@dataclass(frozen=True, kw_only=True)
class Record:
    """One experiment for a tracker: when it starts, without numbers, or with its result."""

    name: str
    """model/attention/benchmark/fingerprint."""
    run: str
    """Id of the tracker's run: the same after resume, another if all is computed again."""
    directory: Path
    settings: Mapping[str, str | int | float | bool]
    """The resolved configuration with dotted keys."""
    numbers: Mapping[str, float]
    """Scores and measurements; what was not measured is left out."""
    tags: Mapping[str, str]
    """`run`; with a result also `result`, the same for the same result only: not for one that was
    rescored."""

    @classmethod
    def from_start(
        cls, names: tuple[str, str, str], *, directory: Path, config: Mapping[str, Any]
    ) -> "Record":
        """Describe an experiment that has begun.

        Args:
            names: of model, attention and benchmark.
            directory: the experiment's; named after its fingerprint, and its start is noted there.
            config: the resolved experiment.
        """
        fingerprint = directory.name
        run = _run_id(directory, fingerprint, otherwise="")
        return cls(
            name=_name(*names, fingerprint),
            run=run,
            directory=directory,
            settings=dict(_flat(config, "")),
            numbers={},
            tags={"fingerprint": fingerprint, "directory": str(directory), "run": run},
        )

    @classmethod
    def from_result(cls, result: Result) -> "Record":
        """Convert a result."""
        provenance = result.provenance
        finished = (provenance.rescored or {}).get("finished", provenance.finished)
        # Earlier versions did not note when an experiment began.
        run = _run_id(result.directory, result.fingerprint, otherwise=str(finished))
        return cls(
            name=_name(result.model, result.attention, result.benchmark, result.fingerprint),
            run=run,
            directory=result.directory,
            settings=dict(_flat(result.config, "")),
            numbers=dict(_numbers(asdict(result), "")),
            tags={
                "fingerprint": result.fingerprint,
                "git_commit": str(provenance.git_commit),
                "host": str(provenance.host),
                "device": str(provenance.device),
                "directory": str(result.directory),
                "run": run,
                "result": _id(f"{result.fingerprint}-{finished}"),
            },
        )


def _name(model: str, attention: str, benchmark: str, fingerprint: str) -> str:
    # Trackers make folders of these names.
    return "/".join([*map(sanitise, (model, attention, benchmark)), fingerprint])


def _run_id(directory: Path, fingerprint: str, *, otherwise: str) -> str:
    return _id(f"{fingerprint}-{first_start(directory).get('time', otherwise)}")


def _id(text: str) -> str:
    # wandb allows no other characters in the id of a run.
    return re.sub("[^0-9A-Za-z-]", "-", text)


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


class LiveRun(Protocol):
    """The run of one experiment in a tracker, while the experiment is computed."""

    def advance(self, numbers: Mapping[str, float], done: int) -> None:
        """Log live numbers; `done` counts the answered examples."""

    def finish(self, record: Record) -> None:
        """Log the result and end the run."""

    def stop(self) -> None:
        """End the run without a result; the next start of the experiment continues it."""


@runtime_checkable
class LiveTracker(Tracker, Protocol):
    """A tracker that also receives live numbers; its `log` continues an unfinished run."""

    def open(self, record: Record) -> LiveRun:
        """Begin the run of an experiment, or continue the one that an earlier start left."""


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
