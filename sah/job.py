"""Composed configurations, each computed in its directory by this process."""

import functools
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sah.errors import CAN_HEAL, Busy, ConfigurationError, SahError, category
from sah.logs import log_file
from sah.results.identity import directory, fingerprint
from sah.results.store import ResultStore, read_results, require_writable
from sah.signals import signals_interrupt

if TYPE_CHECKING:
    from sah.arm import Arm
    from sah.configuration import Experiment

logger = logging.getLogger(__name__)


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
    from sah.configuration import Experiment, check_bundling

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


def compute(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Compute an experiment and return its results; what is done already is not done again.

    An error of any kind is written to error.json in the experiment's directory, unless that is
    not this process's. One that can heal, once the directory is taken, is tried again `retries`
    times; any other travels on.
    """
    (ending,) = compute_arms([(config, overrides)])
    if ending.error is not None:
        raise ending.error
    assert ending.results is not None, "an arm ends with results or an error"
    return ending.results


def compute_arms(arms: Sequence[tuple[DictConfig, Sequence[str]]]) -> "list[Ending]":
    """Compute experiments that differ in sparse attention and metric logging alone.

    One model and one prefill per context serve all of them. Each has its directory, its
    claim and its end to itself: what becomes of one changes nothing for the others.

    Args:
        arms: configurations with the overrides that were typed, at least one.

    Returns:
        What became of each, in order.
    """
    from sah.experiment import run

    endings = [Ending(config, overrides) for config, overrides in arms]
    with signals_interrupt(), ExitStack() as claims:
        for ending in endings:
            claims.callback(ending.release)
            ending.claim()
        while left := [ending for ending in endings if not ending.is_over]:
            try:
                run([one.attempt() for one in left])
            except BaseException as error:
                for ending in left:
                    if not ending.is_over:
                        ending.store.record_error(error)
                raise
    return endings


class Ending:
    """What becomes of one configuration: attempts, then results or an error."""

    experiment: "Experiment"
    """Made by `claim`."""

    def __init__(self, config: DictConfig, overrides: Sequence[str]) -> None:
        self.config = config
        self.overrides = overrides
        self.store = ResultStore(directory(config), fingerprint(config))
        self.results: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.is_over = False
        self._retries_left: int = config.retries
        self._held = ExitStack()

    def claim(self) -> None:
        """Make the experiment and take the directory; where that fails, it is an end too."""
        from sah.configuration import Experiment

        # A requeued job goes on with what its own last start answered, afresh or not.
        restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        resume = bool(self.config.resume) or restarted
        try:
            self.experiment = Experiment.from_config(self.config)
            self._held.enter_context(self.store.claimed(self.config, self.overrides, resume))
            self.results = self.store.results()
            if self.results is None:
                self._held.enter_context(log_file(self.store.directory))
        except Busy as error:
            # The directory is somebody else's.
            self.error = error
        except (SahError, OSError) as error:
            self.error = error
            self.store.record_error(error)
        if self.results is not None:
            logger.info("already complete: %s", self.store.directory)
        if self.results is not None or self.error is not None:
            self.release()

    def attempt(self) -> "Arm":
        """An arm that goes on where the last attempt ended."""
        from sah.arm import Arm

        self.store.load()
        return Arm(self.experiment, self.store, ended=self.note)

    def note(self, arm: "Arm") -> None:
        """Take in how an attempt ended."""
        self.results, self.error = arm.results, arm.error
        if self.error is None:
            self.release()
            self._track()
            return
        if isinstance(self.error, OSError):
            # A directory that is gone is told as such, and not made again for its error.json.
            try:
                self.store.check_claim()
            except Busy as lost:
                self.error = lost
        kind = category(self.error)
        # The directory belongs to somebody else now.
        if isinstance(self.error, Busy):
            self.release()
            return
        self.store.record_error(self.error)
        if self._retries_left > 0 and kind in CAN_HEAL:
            self._retries_left -= 1
            logger.warning("%s: %s; trying again", kind, self.error)
        else:
            self.release()
        _free_memory()

    def _track(self) -> None:
        from sah.tracking import track

        assert self.results is not None
        track(self.config, self.results, self.store.directory)

    def release(self) -> None:
        """Give the directory back, at once: an arm may end long before its job."""
        self.is_over = True
        self._held.close()


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
