"""A sweep: expand and plan its cells, launch the pending ones, sum up the outcomes."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError, Interrupted
from sah.launching.composer import Composer
from sah.launching.composition_memory import CompositionMemory, file_versions
from sah.launching.objective import check_objective
from sah.launching.outcome import CellOutcome, outcome_of
from sah.launching.plan import Cell, SweepPlan, plan_sweep
from sah.launching.subsets import expand_subsets
from sah.launching.sweep_summary import show_results, show_summary, write_summary
from sah.launching.work.plan_file import write_plan
from sah.paths import calibration_home
from sah.results.sweep_folders import SWEEPS, new_sweep_folder, remove_sweep_folder, write_planned

logger = logging.getLogger(__name__)

Launch = Callable[[SweepPlan, Path], bool]
"""Runs the pending cells of a plan, with a folder for logs; returns whether they are detached."""


class Sweep:
    """All batches of one sweep. Composes every cell once, with one composer."""

    def __init__(self, hydra_context: HydraContext, config: DictConfig) -> None:
        """Prepare a sweep; composes nothing yet.

        Args:
            hydra_context: whose loader composes the cells.
            config: the sweep's own configuration, `hydra` included.
        """
        self._loader: Any = hydra_context.config_loader
        self._config = config
        self._output_root = Path(str(config.output_root))
        self._outcomes: list[CellOutcome] = []

    def expand(self, jobs: Sequence[Sequence[str]]) -> list[list[str]]:
        """Replace each job with benchmark.subset='*' by one for every subset.

        Raises:
            ConfigurationError: if the benchmark does not list its subsets.
        """
        return expand_subsets(jobs, self._composer)

    def run(self, jobs: Sequence[Sequence[str]], launch: Launch) -> list[CellOutcome]:
        """Run the jobs that are not complete; return the outcomes of all, in order.

        Raises:
            ConfigurationError: if there is no job, if no result can have the objective, if the
                launcher refuses its settings, or naming everything for which cells cannot work;
                then nothing is launched, and no folder of the sweep stays.
            Interrupted: after the summary of what was done.
        """
        started = time.monotonic()
        if not jobs:
            raise ConfigurationError(
                "the sweep has no experiment: an override has no values, such as range(0,0)"
            )
        check_objective(str(self._config.objective))
        plan = self._plan(jobs)
        logger.info(
            "%d %s: %d finished already, %d duplicates, %d to run",
            *(len(plan.cells), "experiment" if len(plan.cells) == 1 else "experiments"),
            *(len(plan.finished), len(plan.repeated), len(plan.pending)),
        )
        if not plan.pending:
            self._outcomes += (outcomes := _outcomes(plan))
            return outcomes
        folder = new_sweep_folder(self._output_root)
        OmegaConf.save(self._config, folder / "multirun.yaml")
        planned = {cell.directory: cell.planned for cell in plan.pending}
        write_planned(folder, planned, self._output_root)
        write_plan(folder, plan.pending, self._config)
        detached = False
        try:
            detached = launch(plan, folder)
        except ConfigurationError:
            # Refused before a job has run: a GPU that is not there, no SLURM.
            remove_sweep_folder(folder)
            raise
        except Interrupted as interruption:
            outcomes = _sum_up(plan, folder, started, cancelled=interruption.cancelled)
            done = sum(one.outcome in ("done", "finished", "repeated") for one in outcomes)
            progress = f"{done} of {len(outcomes)} experiments done"
            raise Interrupted(interruption.signum, progress=progress) from None
        self._outcomes += (outcomes := _sum_up(plan, folder, started, detached=detached))
        return outcomes

    def forecast(self, jobs: Sequence[Sequence[str]]) -> SweepPlan:
        """Compose and check the jobs as `run` does, but write nothing; problems are in the plan.

        Raises:
            ConfigurationError: if no result can have the objective.
        """
        check_objective(str(self._config.objective))
        return plan_sweep(jobs, self._composer, self._memory(), writes=False)

    def show_results(self) -> None:
        """Show the results of all batches and what to type next."""
        show_results(self._outcomes)

    @cached_property
    def _composer(self) -> Composer:
        return Composer(self._loader, self._config)

    def _plan(self, jobs: Sequence[Sequence[str]]) -> SweepPlan:
        memory = self._memory()
        plan = plan_sweep(jobs, self._composer, memory)
        if plan.problems:
            raise ConfigurationError(
                f"{plan.refused} of {len(jobs)} experiments cannot work; nothing was started:\n"
                + plan.describe_problems()
            )
        memory.save()
        return plan

    def _memory(self) -> CompositionMemory:
        hydra = self._config.hydra
        sources = hydra.runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
        # The yaml files of a package (hydra.searchpath=[pkg://...]) cannot be hashed.
        hidden = any(item.schema == "pkg" and item.provider != "hydra" for item in sources)
        return CompositionMemory(
            self._output_root / SWEEPS / "composed.json",
            folders,
            [
                str(hydra.job.config_name),
                *hydra.overrides.hydra,
                # Digests of calibration files are part of a configuration too.
                *file_versions(calibration_home()),
            ],
            usable=bool(self._config.resume) and not hidden,
        )


def _sum_up(
    plan: SweepPlan,
    folder: Path,
    started: float,
    *,
    detached: bool = False,
    cancelled: Collection[int] = (),
) -> list[CellOutcome]:
    outcomes = _outcomes(plan, detached=detached, cancelled=cancelled)
    write_summary(folder, outcomes, started)
    show_summary(outcomes, folder)
    return outcomes


def _outcomes(
    plan: SweepPlan, *, detached: bool = False, cancelled: Collection[int] = ()
) -> list[CellOutcome]:
    finished = {cell.number for cell in plan.finished}
    repeated = {cell.number for cell in plan.repeated}

    def outcome(cell: Cell) -> CellOutcome:
        if cell.number in finished:
            return CellOutcome(cell=cell, outcome="finished")
        if detached:
            return CellOutcome(cell=cell, outcome="detached")
        found = outcome_of(cell, cancelled=cell.number in cancelled)
        if cell.number in repeated and found.outcome == "done":
            return CellOutcome(cell=cell, outcome="repeated")
        return found

    return [outcome(cell) for cell in plan.cells]
