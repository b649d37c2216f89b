"""What is known of an experiment before anything runs: is it complete, and can it work?"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sah.errors import ConfigurationError
from sah.results.identity import directory
from sah.results.store import read_results, require_writable


def finished(config: DictConfig) -> tuple[Path, dict[str, Any] | None]:
    """Where an experiment belongs, and its results if it is complete. Loads no model.

    With resume=false nothing counts as complete.

    Raises:
        ConfigurationError: if a mandatory value is missing, or resume is neither true nor false.
        DamagedResults: if the directory holds something else.
    """
    if not isinstance(config.resume, bool):
        # A text is true to Python: resume=no would resume.
        raise ConfigurationError(f"resume must be true or false, got {config.resume!r}")
    try:
        folder = directory(config)
    except MissingMandatoryValue as error:
        raise ConfigurationError(
            f"{error.full_key} must be given; set it on the command line with "
            f"{error.full_key}=VALUE"
        ) from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{reason}; set it on the command line with KEY=VALUE") from error
    return folder, read_results(folder, folder.name) if config.resume else None


def check(config: DictConfig, overrides: Sequence[str]) -> None:
    """Find what is wrong with an experiment before anything is written or submitted.

    Raises:
        ConfigurationError: naming the value, the limit and the way out.
    """
    from sah.execution.experiment import Experiment, check_bundling

    chosen = {override.lstrip("+~").partition("=")[0] for override in overrides}
    if {"attention", "sparse_attention"} <= chosen:
        raise ConfigurationError(
            "attention= and sparse_attention= are two names of one choice; give only one of them"
        )
    Experiment.from_config(config)
    check_bundling(config.bundle, config.bundle_max)
    retries = config.retries
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigurationError(
            f"retries must be a whole number of at least 0, got {retries!r}; 0 tries once"
        )
    _require_writable_once(Path(str(config.output_root)))


@functools.cache
def _require_writable_once(root: Path) -> None:
    """The cells of a sweep share their root; what raises is looked at again."""
    require_writable(root)
