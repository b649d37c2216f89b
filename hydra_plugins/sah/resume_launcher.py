"""In front of any launcher: finished experiments are never launched."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, flag_override

logger = logging.getLogger(__name__)


class ResumeLauncher(Launcher):
    """Composes every cell, refuses a sweep that cannot work, drops what is finished or twice."""

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
        returns: dict[int, JobReturn] = {}
        waiting: dict[Path, int] = {}
        twice: dict[int, int] = {}
        problems = []
        for number, overrides in enumerate(job_overrides):
            try:
                folder, results = self._look_up(overrides)
            except CompactHydraException as error:
                problems.append(f"  {' '.join(filter_overrides(overrides))}\n    {error}")
                continue
            if results is not None:
                returns[number] = _finished(overrides, folder, results)
            elif folder in waiting:
                twice[number] = waiting[folder]
            else:
                waiting[folder] = number
        if problems:
            raise CompactHydraException(
                f"{len(problems)} of {len(job_overrides)} experiments cannot work; "
                "nothing was started:\n" + "\n".join(problems)
            )
        logger.info(
            "%d experiments: %d finished already, %d the same as another, %d to run",
            *(len(job_overrides), len(returns), len(twice), len(waiting)),
        )
        if waiting:
            chosen = list(waiting.values())
            launched = self.inner.launch(
                [job_overrides[number] for number in chosen], initial_job_idx
            )
            returns.update(zip(chosen, launched, strict=True))
        returns.update({number: returns[original] for number, original in twice.items()})
        return [returns[number] for number in range(len(job_overrides))]

    def _look_up(self, overrides: Sequence[str]) -> tuple[Path, dict[str, Any] | None]:
        from sah.errors import SahError
        from sah.job import check, finished

        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        try:
            folder, results = finished(config)
            if results is None:
                check(config, list(config.hydra.overrides.task))
        except SahError as error:
            raise CompactHydraException(str(error)) from error
        return folder, results


def _finished(overrides: Sequence[str], folder: Path, results: dict[str, Any]) -> JobReturn:
    job = JobReturn(overrides=list(overrides), working_dir=str(folder), status=JobStatus.COMPLETED)
    job.return_value = results["score"]
    return job
