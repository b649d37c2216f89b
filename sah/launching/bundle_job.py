"""The cells of one bundle in a process of their own: what submitit pickles and runs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BundleJob:
    """Composed cells, ready to run anywhere: one, or the arms of one model.

    It carries the configurations as composed when the sweep began: editing a yaml file
    while jobs are queued changes nothing.
    """

    configs: tuple[DictConfig, ...]
    hydra_context: HydraContext
    task_function: TaskFunction
    """Runs a single cell."""
    singletons: Mapping[Any, Any]

    def __call__(self) -> str:
        """Run the cells; return the name of the job's status.

        What became of each is in its directory; nothing else needs to be pickled.
        """
        Singleton.set_state(dict(self.singletons))
        setup_globals()
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function if len(self.configs) == 1 else self._run_arms,
            config=self.configs[0],
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return str(done.status.name)

    def checkpoint(self) -> Any:
        """Submit the same again: all state is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run_arms(self, _: DictConfig) -> None:
        from sah.errors import category
        from sah.execution.attempts import compute_arms
        from sah.execution.progress import quiet_libraries
        from sah.results.identity import directory
        from sah.results.show import show_results

        quiet_libraries()
        outcomes = compute_arms([_without_hydra(config) for config in self.configs])
        for config, outcome in zip(self.configs, outcomes, strict=True):
            if outcome.results is not None:
                show_results(outcome.results, directory(config))
            elif outcome.error is not None:
                error = outcome.error
                logger.error("%s: %s", category(error), error, exc_info=error)


def _without_hydra(config: DictConfig) -> tuple[DictConfig, list[str]]:
    """A cell's own configuration, and what was typed for it."""
    overrides = [str(override) for override in config.hydra.overrides.task]
    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return own, overrides
