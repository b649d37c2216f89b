"""What is known about an experiment before it runs: is it complete, and can it work?

Light: Hydra imports this at every start, and a complete experiment is shown without torch.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sah.errors import ConfigurationError
from sah.execution.hydra_settings import require_fixed_settings
from sah.results.identity import directory
from sah.results.schema import Result
from sah.results.store import read_result, require_place, require_writable

if TYPE_CHECKING:
    from sah.tracking import Tracker
    from sah.types import Benchmark


_CHECKED: set[str] = set()
"""Benchmarks whose data were valid."""

_WORKING: set[str] = set()
"""Trackers that can store results."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Top-level keys of conf/config.yaml that do not belong to the experiment itself."""

    output_root: str
    resume: bool
    retries: int
    bundle: Literal["attention", "none"]
    bundle_max: int | None
    objective: str
    study: Mapping[str, Any]


def find_complete(config: DictConfig) -> tuple[Path, Result | None]:
    """Return the experiment's directory, and its result if it is complete.

    With resume=false nothing counts as complete.

    Raises:
        ConfigurationError: if a mandatory value is missing, the directory cannot be looked up, or
            resume is neither true nor false.
        DamagedResults: if the directory holds another experiment's results.
    """
    require_fixed_settings(config)
    _check_options(config, "resume", "output_root")
    try:
        folder = directory(config)
        return folder, read_result(folder, folder.name) if config.resume else None
    except MissingMandatoryValue as error:
        raise ConfigurationError(
            f"{error.full_key} must be given; set it on the command line with "
            f"{error.full_key}=VALUE"
        ) from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{reason}; set it on the command line with KEY=VALUE") from error
    except OSError as error:
        raise ConfigurationError(
            f"output_root: cannot read {config.output_root!r} ({error.strerror}); choose another "
            "with output_root=DIR"
        ) from error


def check_output_root(config: DictConfig, *, writes: bool = True) -> None:
    """Check that the output root is a folder that can be written to; create it if `writes`.

    Raises:
        ConfigurationError: naming it and the system's reason.
    """
    try:
        _check_options(config, "output_root")
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"output_root: {str(error).splitlines()[0]}") from error
    if writes:
        _require_writable_once(Path(config.output_root))
    else:
        require_place(Path(config.output_root))


def check(config: DictConfig, overrides: Sequence[str], *, writes: bool = True) -> None:
    """Check an experiment, and its local data, before anything is written or submitted.

    Args:
        config: the composed experiment.
        overrides: what it was composed from.
        writes: whether to make the output root, and to ask the tracker whether it works.

    Raises:
        ConfigurationError: naming the value, the limit and the way out.
        DatasetError: naming the file and what is wrong with it.
    """
    from sah.execution.building import build
    from sah.execution.experiment import Experiment

    chosen = {override.lstrip("+~").partition("=")[0] for override in overrides}
    if {"attention", "sparse_attention"} <= chosen:
        raise ConfigurationError(
            "attention= and sparse_attention= are two names of one choice; give only one of them "
            "(a study that chooses sparse_attention is changed by sparse_attention=)"
        )
    _check_options(config, *_Options.__dataclass_fields__)
    if config.retries < 0:
        raise ConfigurationError(f"retries must be at least 0, got {config.retries}; 0 tries once")
    if config.bundle_max is not None and config.bundle_max < 1:
        raise ConfigurationError(f"bundle_max must be at least 1 or null, got {config.bundle_max}")
    experiment = Experiment.from_config(config)
    _check_data_once(experiment.benchmark)
    check_output_root(config, writes=writes)
    tracker = build(config, "tracker")
    if writes:
        _require_working_once(tracker)


def _check_options(config: DictConfig, *names: str) -> None:
    from sah.validation import wrong_fields

    values = {name: config[name] for name in names}
    for name, problem in wrong_fields(_Options, values):
        raise ConfigurationError(f"{name} {problem}")
    root = values.get("output_root")
    if root is not None and (not root.strip() or "\0" in root):
        raise ConfigurationError(
            f"output_root={root!r} is not the name of a folder; choose one with output_root=DIR"
        )
    if root is not None and root.startswith("~"):
        raise ConfigurationError(
            f"output_root={root!r} would be a folder named {root.partition('/')[0]}, since only a "
            "shell expands it; write the whole path, or ./ before it"
        )


def _check_data_once(benchmark: "Benchmark") -> None:
    """Check data that cells of a sweep share only once; an error is found again."""
    # Fields may be lists, so that a benchmark has no hash.
    description = repr(benchmark)
    if description not in _CHECKED:
        benchmark.check_data()
        _CHECKED.add(description)


def _require_working_once(tracker: "Tracker") -> None:
    """Check a tracker that all cells of a sweep share only once; an error is found again."""
    from sah.tracking import require_working

    if repr(tracker) not in _WORKING:
        require_working(tracker)
        _WORKING.add(repr(tracker))


@functools.cache
def _require_writable_once(root: Path) -> None:
    """Check a root that all cells of a sweep share only once; errors are not cached."""
    require_writable(root)
