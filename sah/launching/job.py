"""One cell of a sweep in a process of its own: what submitit pickles and runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """A composed cell, ready to run anywhere.

    It carries the configuration as composed when the sweep began: editing a yaml file while
    jobs are queued changes nothing.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction
    singletons: Mapping[Any, Any]

    def __call__(self) -> str:
        """Run the cell; return the name of its status.

        What became of it is in its directory; nothing else needs to be pickled.
        """
        Singleton.set_state(dict(self.singletons))
        setup_globals()
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return str(done.status.name)

    def checkpoint(self) -> Any:
        """Submit the same again: all state is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
