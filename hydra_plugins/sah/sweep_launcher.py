"""The launcher that the callback puts in front of the chosen one: plans, launches, sums up."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, flag_override

from hydra_plugins.sah.launchers import CellLauncher
from hydra_plugins.sah.search import SearchRecorder, is_search

if TYPE_CHECKING:
    from sah.launching.outcome import CellOutcome
    from sah.launching.plan import SweepPlan


class SweepLauncher(Launcher):
    """Composes and checks every cell, drops complete and duplicate ones, and reports outcomes.

    Our own launchers get the composed cells; any other launcher gets the overrides of the
    pending cells.
    """

    unfinished: Counter[str]
    """Number of cells without a result, by outcome; over all batches."""

    def __init__(self, wrapped: DictConfig) -> None:
        self.wrapped = wrapped

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Set up the chosen launcher, at its own place in the configuration."""
        from sah.launching.sweep import Sweep

        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.launcher = self.wrapped
        self.config = config
        self.sweep = Sweep(hydra_context, config)
        self.unfinished = Counter[str]()
        self.recorder = SearchRecorder(config) if is_search(config) else None
        self.inner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launch what is not complete; return all results in the order of the overrides.

        Raises:
            CompactHydraException: naming everything for which cells cannot work; then nothing is
                launched.
        """
        from sah.errors import SahError
        from sah.launching.outcome import UNFINISHED

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)

        def launch_pending(plan: "SweepPlan", folder: Path) -> bool:
            if isinstance(self.inner, CellLauncher):
                return self.inner.launch_cells(plan.pending, folder, finished=len(plan.finished))
            self.inner.launch([list(cell.overrides) for cell in plan.pending], initial_job_idx)
            return False

        if isinstance(self.inner, CellLauncher):
            # Checked before anything is written.
            self.inner.settings()
        try:
            outcomes = self.sweep.run(job_overrides, launch_pending)
            self.unfinished.update(one.outcome for one in outcomes if one.outcome in UNFINISHED)
            returns = [_job_return(one, str(self.config.objective)) for one in outcomes]
        except SahError as error:
            raise CompactHydraException(str(error)) from error
        if self.recorder is not None:
            self.recorder.add(returns)
        return returns


def _job_return(outcome: "CellOutcome", expression: str) -> JobReturn:
    """The objective of a cell for a sweeper that searches, or why there is none."""
    from sah.launching.objective import objective
    from sah.results.store import read_result

    cell = outcome.cell
    job = JobReturn(overrides=list(cell.overrides), working_dir=str(cell.directory))
    if outcome.outcome in ("done", "finished", "repeated"):
        job.status = JobStatus.COMPLETED
        result = read_result(cell.directory)
        job.return_value = None if result is None else objective(expression, result)
    elif outcome.outcome in ("detached", "elsewhere"):
        job.status = JobStatus.COMPLETED
        job.return_value = None
    else:
        job.status = JobStatus.FAILED
        job.return_value = CompactHydraException(outcome.reason or outcome.outcome)
    return job
