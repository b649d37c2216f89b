"""One composed configuration, computed in its directory by this process."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sah.errors import CAN_HEAL, Busy, ConfigurationError, category
from sah.results.identity import directory, fingerprint
from sah.results.store import ResultStore, read_results, require_writable
from sah.signals import signals_interrupt

logger = logging.getLogger(__name__)


def finished(config: DictConfig) -> tuple[Path, dict[str, Any] | None]:
    """Where an experiment belongs, and its results if it is complete. Loads no model.

    With resume=false nothing counts as complete.

    Raises:
        ConfigurationError: if a mandatory value is missing.
        DamagedResults: if the directory holds something else.
    """
    try:
        folder = directory(config)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"{reason}; set it on the command line with KEY=VALUE") from error
    return folder, read_results(folder, folder.name) if config.resume else None


def check(config: DictConfig, overrides: Sequence[str]) -> None:
    """Find what is wrong with an experiment before anything is written or submitted.

    Raises:
        ConfigurationError: naming the value, the limit and the way out.
    """
    from sah.configuration import Experiment

    chosen = {override.lstrip("+~").partition("=")[0] for override in overrides}
    if {"attention", "sparse_attention"} <= chosen:
        raise ConfigurationError(
            "attention= and sparse_attention= are two names of one choice; give only one of them"
        )
    Experiment.from_config(config)
    _require_writable_once(Path(str(config.output_root)))


def compute(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Compute an experiment and return its results; what is done already is not done again.

    An error of any kind is written to error.json in the experiment's directory. One that
    can heal is tried again `retries` times; any other travels on.
    """
    from sah.configuration import Experiment
    from sah.experiment import run
    from sah.tracking import track

    experiment = Experiment.from_config(config)
    # A requeued job goes on with what its own last start answered, afresh or not.
    resume = bool(config.resume) or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    store = ResultStore(directory(config), fingerprint(config))
    with signals_interrupt(), store.claimed(config, overrides, resume):
        results = store.results()
        if results is not None:
            logger.info("already complete: %s", store.directory)
            return results
        for attempt in range(int(config.retries) + 1):
            try:
                results = run(experiment, store)
                track(config, results, store.directory)
                return results
            except Busy:
                # The directory belongs to somebody else now.
                raise
            except BaseException as error:
                store.record_error(error)
                if attempt == config.retries or category(error) not in CAN_HEAL:
                    raise
                logger.warning("%s: %s; trying again", category(error), error)
            _free_memory()
            store.load()
        raise AssertionError("the last attempt returns or raises")


@functools.cache
def _require_writable_once(root: Path) -> None:
    """The cells of a sweep share their root; what raises is looked at again."""
    require_writable(root)


def _free_memory() -> None:
    """Give back what a failed attempt left on the GPU."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
