"""Composed configurations, each computed in its directory by this process."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sah.errors import RETRYABLE, Busy, SahError, category
from sah.execution.logs import log_file
from sah.execution.signals import signals_interrupt
from sah.results.identity import directory, fingerprint
from sah.results.store import ResultStore

if TYPE_CHECKING:
    from sah.execution.arm import Arm
    from sah.execution.experiment import Experiment

logger = logging.getLogger(__name__)


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
    from sah.execution.run import run

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
        from sah.execution.experiment import Experiment

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
        from sah.execution.arm import Arm

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
        if self._retries_left > 0 and kind in RETRYABLE:
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


def _free_memory() -> None:
    """Give back what a failed attempt left on the GPU."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
