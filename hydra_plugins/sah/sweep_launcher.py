"""In front of any launcher: plans the sweep, launches what is to run, sums up."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

if TYPE_CHECKING:
    from sah.launching.outcome import CellOutcome
    from sah.launching.plan import Cell, SweepPlan

logger = logging.getLogger(__name__)


class SweepLauncher(Launcher):
    """Composes and checks every cell, drops what is finished or twice, and reports the rest.

    A launcher of ours is given the composed cells (`launch_cells`), any other one the
    overrides of those that are to run.
    """

    def __init__(self, wrapped: DictConfig) -> None:
        self.wrapped = wrapped

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Set up the launcher that was chosen, in its own place in the configuration."""
        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.launcher = self.wrapped
        self.config = config
        self.hydra_context = hydra_context
        self.inner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launch what is not finished; return all results in the order of the overrides.

        Raises:
            CompactHydraException: listing every cell that cannot work; nothing is launched.
        """
        from sah.errors import Interrupted
        from sah.results.sweep_folders import new_sweep_folder, write_planned

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        started = time.monotonic()
        plan = self._plan(job_overrides)
        if plan.problems:
            raise CompactHydraException(
                f"{len(plan.problems)} of {len(job_overrides)} experiments cannot work; "
                "nothing was started:\n" + "\n".join(plan.problems)
            )
        logger.info(
            "%d experiments: %d finished already, %d the same as another, %d to run",
            *(len(plan.cells), len(plan.finished), len(plan.repeated), len(plan.pending)),
        )
        if not plan.pending:
            return self._returns(self._outcomes(plan, detached=False))
        folder = new_sweep_folder(Path(str(self.config.output_root)))
        OmegaConf.save(self.config, folder / "multirun.yaml")
        directories = [cell.directory for cell in plan.pending]
        write_planned(folder, directories, Path(str(self.config.output_root)))
        try:
            detached = self._launch_pending(plan, folder, initial_job_idx)
        except Interrupted:
            self._sum_up(plan, folder, started, detached=False)
            raise
        return self._returns(self._sum_up(plan, folder, started, detached=detached))

    def _plan(self, job_overrides: Sequence[Sequence[str]]) -> "SweepPlan":
        from sah.launching.composer import Composer
        from sah.launching.composition_memory import CompositionMemory, file_versions
        from sah.launching.plan import plan_sweep
        from sah.paths import calibration_home
        from sah.results.sweep_folders import SWEEPS

        loader: Any = self.hydra_context.config_loader
        sources = self.config.hydra.runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
        # The yaml files of a package (hydra.searchpath=[pkg://...]) are not looked at.
        hidden = any(item.schema == "pkg" and item.provider != "hydra" for item in sources)
        memory = CompositionMemory(
            Path(str(self.config.output_root)) / SWEEPS / "composed.json",
            folders,
            [
                str(self.config.hydra.job.config_name),
                *self.config.hydra.overrides.hydra,
                # Configurations include digests of fitted files (sah.calibration) too.
                *file_versions(calibration_home()),
            ],
            usable=bool(self.config.resume) and not hidden,
        )
        plan = plan_sweep(job_overrides, Composer(loader, self.config), memory)
        if not plan.problems:
            memory.save()
        return plan

    def _launch_pending(self, plan: "SweepPlan", folder: Path, initial_job_idx: int) -> bool:
        """Run what is to run; return whether it goes on without this process."""
        launch_cells = getattr(self.inner, "launch_cells", None)
        if launch_cells is not None:
            return bool(launch_cells(plan.pending, folder, finished=len(plan.finished)))
        self.inner.launch([list(cell.overrides) for cell in plan.pending], initial_job_idx)
        return False

    def _sum_up(
        self, plan: "SweepPlan", folder: Path, started: float, *, detached: bool
    ) -> "list[CellOutcome]":
        from sah.launching.sweep_summary import show_summary, write_summary

        outcomes = self._outcomes(plan, detached=detached)
        write_summary(folder, outcomes, started)
        show_summary(outcomes, folder)
        return outcomes

    def _returns(self, outcomes: "Sequence[CellOutcome]") -> list[JobReturn]:
        from sah.errors import SahError

        try:
            return [_job_return(outcome, str(self.config.objective)) for outcome in outcomes]
        except SahError as error:
            raise CompactHydraException(str(error)) from error

    def _outcomes(self, plan: "SweepPlan", *, detached: bool) -> "list[CellOutcome]":
        from sah.launching.outcome import CellOutcome, outcome_of

        finished = {cell.number for cell in plan.finished}
        repeated = {cell.number for cell in plan.repeated}

        def outcome(cell: "Cell") -> CellOutcome:
            if cell.number in finished:
                return CellOutcome(cell=cell, outcome="finished")
            if detached:
                return CellOutcome(cell=cell, outcome="detached")
            found = outcome_of(cell)
            if cell.number in repeated and found.outcome == "done":
                return CellOutcome(cell=cell, outcome="repeated")
            return found

        return [outcome(cell) for cell in plan.cells]


def _job_return(outcome: "CellOutcome", expression: str) -> JobReturn:
    """What a sweeper is told: the objective of a cell, or why there is none."""
    from sah.launching.objective import objective
    from sah.results.store import read_results

    cell = outcome.cell
    job = JobReturn(overrides=list(cell.overrides), working_dir=str(cell.directory))
    if outcome.outcome in ("done", "finished", "repeated"):
        job.status = JobStatus.COMPLETED
        results = read_results(cell.directory)
        job.return_value = None if results is None else objective(expression, results)
    elif outcome.outcome in ("detached", "elsewhere"):
        job.status = JobStatus.COMPLETED
        job.return_value = None
    else:
        job.status = JobStatus.FAILED
        job.return_value = CompactHydraException(outcome.reason or outcome.outcome)
    return job
