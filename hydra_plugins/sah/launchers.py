"""hydra/launcher=local and hydra/launcher=slurm: one job per GPU, here or on a cluster."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import open_dict

if TYPE_CHECKING:
    from sah.launching.job import CellJob
    from sah.launching.plan import Cell
    from sah.launching.settings import LauncherSettings

logger = logging.getLogger(__name__)


class _CellLauncher(BaseSubmititLauncher):
    """What both have in common: settings, and making a job of a composed cell."""

    def settings(self) -> "LauncherSettings":
        """The configuration of the launcher, checked."""
        from sah.launching.settings import LauncherSettings

        try:
            return LauncherSettings(**self.params)
        except (TypeError, ValueError) as error:
            raise CompactHydraException(f"hydra.launcher: {error}") from error

    def launch_cells(self, cells: "Sequence[Cell]", folder: Path, *, finished: int) -> bool:
        """Run composed cells; return whether they go on without this process."""
        from sah.errors import SahError

        settings = self.settings()
        try:
            return self._run(cells, folder, settings, finished)
        except SahError as error:
            raise CompactHydraException(str(error)) from error

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Not used: SweepLauncher, which every sweep has, gives composed cells."""
        raise CompactHydraException(
            f"{type(self).__name__} needs the callback hydra.callbacks.resume of conf/config.yaml"
        )

    @abstractmethod
    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        """Run cells to their end, or return True if they go on without this process."""

    def _make_job(self, cell: "Cell") -> "CellJob":
        from sah.launching.job import CellJob

        config = cell.config
        with open_dict(config.hydra.job):
            config.hydra.job.num = cell.number
            config.hydra.job.id = str(cell.number)
        return CellJob(
            config=config,
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            singletons=Singleton.get_state(),
        )


class LocalLauncher(_CellLauncher):
    """One job per free GPU of this machine, or CPU workers where there is none."""

    _EXECUTOR = "local"

    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        from sah.launching.monitor import SweepMonitor
        from sah.launching.pool import find_slots, run_pool

        places = find_slots(settings)
        logger.info("%d jobs, %d at a time; logs in %s", len(cells), len(places), folder / "jobs")
        with SweepMonitor(cells, finished=finished) as monitor:
            run_pool(cells, self._make_job, places, folder / "jobs", settings, monitor.look)
        return False


class SlurmLauncher(_CellLauncher):
    """One SLURM job per cell, one GPU each; requeued and resumed when preempted."""

    _EXECUTOR = "slurm"

    def _run(
        self, cells: "Sequence[Cell]", folder: Path, settings: "LauncherSettings", finished: int
    ) -> bool:
        from sah.launching import slurm
        from sah.launching.monitor import SweepMonitor

        name: Any = self.config.hydra.job.name
        submitted = slurm.submit(cells, self._make_job, folder / "jobs", str(name), settings)
        logger.info("%d jobs submitted; logs in %s", len(submitted), folder / "jobs")
        if settings.detach:
            logger.info("detached; `sah status` tells how they do")
            return True
        with SweepMonitor(cells, finished=finished) as monitor:
            slurm.watch(submitted, settings, monitor.look)
        return False
