"""hydra/launcher=local and hydra/launcher=slurm: one job per GPU, here or on a cluster."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

if TYPE_CHECKING:
    from sah.launching.bundles import Bundle
    from sah.launching.plan import Cell
    from sah.launching.processes.bundle_job import BundleJob
    from sah.launching.settings import LauncherSettings

logger = logging.getLogger(__name__)


class CellLauncher(BaseSubmititLauncher):
    """What both launchers share: their settings, and making a job of composed cells."""

    def settings(self) -> "LauncherSettings":
        """The launcher's configuration, checked."""
        from sah.execution.building import check_fields
        from sah.launching.settings import LauncherSettings

        try:
            check_fields("hydra.launcher", LauncherSettings, self.params)
            return LauncherSettings(**self.params)
        except ValueError as error:
            raise CompactHydraException(str(error)) from error

    @abstractmethod
    def slots(self) -> int:
        """The number of jobs that could start now, which decides how cells are bundled."""

    def launch_cells(self, cells: "Sequence[Cell]", folder: Path, *, finished: int) -> bool:
        """Run composed cells; return whether they are detached from this process."""
        return self._run(cells, folder, self.settings(), finished)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Refuse: every sweep has SweepLauncher in front, which passes composed cells instead."""
        raise CompactHydraException(
            f"{type(self).__name__} needs the callback hydra.callbacks.resume of conf/config.yaml"
        )

    @abstractmethod
    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        """Run cells to their end, or return True if they are detached."""

    def _make_job(self, bundle: "Bundle") -> "BundleJob":
        from sah.launching.processes.bundle_job import BundleJob

        configs = ((cell.number, cell.config) for cell in bundle.cells)
        return BundleJob.of(configs, self.hydra_context)


def _log_jobs(
    bundles: "Sequence[Bundle]", number: int, folder: Path, *, verb: str = "", how: str = ""
) -> None:
    arms = sum(len(bundle.cells) for bundle in bundles)
    what = "prefills" if arms > len(bundles) else "models"
    shared = "" if arms == number else f" for {arms} experiments, which share {what}"
    jobs = "1 job" if number == 1 else f"{number} jobs"
    logger.info("%s%s%s%s; logs in %s", jobs, verb, shared, how, folder)


class LocalLauncher(CellLauncher):
    """One job per free GPU of this machine, or CPU workers without a GPU."""

    _EXECUTOR = "local"

    def slots(self) -> int:
        """The number of free slots of this machine."""
        from sah.launching.pool import find_slots

        return len(find_slots(self.settings()))

    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        from sah.launching.bundles import bundle_cells
        from sah.launching.monitor import SweepMonitor
        from sah.launching.pool import find_slots, run_pool

        slots, jobs = find_slots(settings), folder / "jobs"
        bundles = bundle_cells(cells, len(slots))
        _log_jobs(bundles, len(bundles), jobs, how=f", {len(slots)} at a time")
        with SweepMonitor(cells, finished=finished) as monitor:
            run_pool(bundles, self._make_job, slots, jobs, settings, monitor.update)
        return False


class SlurmLauncher(CellLauncher):
    """One SLURM job per bundle, one GPU each; requeued and resumed when preempted."""

    _EXECUTOR = "slurm"

    def slots(self) -> int:
        """The number of slots that are free on the cluster now."""
        from sah.launching import slurm

        return slurm.free_slots(self.settings())

    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        from sah.launching import slurm
        from sah.launching.bundles import bundle_cells
        from sah.launching.monitor import SweepMonitor
        from sah.launching.outcome import CellWatch

        name: Any = self.config.hydra.job.name
        bundles, jobs = bundle_cells(cells, slurm.free_slots(settings)), folder / "jobs"
        watch = CellWatch(cells)
        submitted = slurm.submit(bundles, self._make_job, jobs, str(name), settings)
        _log_jobs(bundles, len(submitted), jobs, verb=" submitted")
        if settings.detach:
            logger.info("detached; use `sah status` to follow them")
            return True
        with SweepMonitor(cells, finished=finished) as monitor:
            slurm.watch(submitted, watch, settings, monitor.update)
        return False


class WorkersLauncher(CellLauncher):
    """Plans the sweep and leaves it to workers, which any scheduler runs: `sah work FOLDER`."""

    _EXECUTOR = "local"

    def slots(self) -> int:
        """The number of workers to expect; only `sah plan` needs it."""
        return self.settings().max_concurrent or 1

    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        from sah.launching.bundles import bundle_cells

        bundles = len(bundle_cells(cells, 1))
        logger.info(
            "%d bundles wait for workers: sah work %s (see docs/schedulers.md)", bundles, folder
        )
        return True
