"""A bundle as the job of a process: pickled when the sweep starts, run here or on another node."""

import logging
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

if TYPE_CHECKING:
    from sah.models.loading.kept_model import KeptModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BundleJob:
    """What a process runs.

    It carries the configurations as they were composed at the start of the sweep: editing a
    yaml file while jobs are queued has no effect.
    """

    configs: tuple[DictConfig, ...]
    hydra_context: HydraContext
    singletons: Mapping[Any, Any]

    @classmethod
    def of(
        cls, configs: Iterable[tuple[int, DictConfig]], hydra_context: HydraContext
    ) -> "BundleJob":
        """Make the job of composed cells.

        Args:
            configs: of the cells, with their numbers.
            hydra_context: of the sweep.
        """
        numbered = []
        for number, config in configs:
            with open_dict(config.hydra.job):
                config.hydra.job.num = number
                config.hydra.job.id = str(number)
            numbered.append(config)
        return cls(
            configs=tuple(numbered),
            hydra_context=hydra_context,
            singletons=Singleton.get_state(),
        )

    def __call__(self, models: "KeptModel") -> bool:
        """Run the cells; return whether each of them has a result.

        The outcome of each cell is in its directory; nothing else has to be pickled.

        Args:
            models: of this process.
        """
        Singleton.set_state(dict(self.singletons))
        setup_globals()
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=partial(self._run_arms, models),
            config=self.configs[0],
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        # Raises what ended the job outside of its arms.
        return bool(done.return_value)

    def _run_arms(self, models: "KeptModel", _: DictConfig) -> bool:
        from sah.errors import category
        from sah.execution.attempts import compute_arms
        from sah.execution.progress import quiet_libraries
        from sah.results.show import show_result

        quiet_libraries()
        outcomes = compute_arms([_without_hydra(config) for config in self.configs], models)
        for outcome in outcomes:
            if outcome.result is not None:
                show_result(outcome.result)
            elif outcome.error is not None:
                error = outcome.error
                logger.error("%s: %s", category(error), error, exc_info=error)
        return all(outcome.error is None for outcome in outcomes)


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """Bundles that one SLURM job runs one after the other, with one model."""

    bundles: tuple[BundleJob, ...]

    def __call__(self) -> None:
        """Run the bundles; those that were complete before a requeue only say so."""
        from sah.models.loading.kept_model import KeptModel, free_memory

        models = KeptModel()
        for bundle in self.bundles:
            with clean_process():
                all_done = bundle(models)
            if not all_done:
                models.forget()
            free_memory()

    def checkpoint(self) -> Any:
        """Submit the same job again after a preemption: all state is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextmanager
def clean_process() -> Iterator[None]:
    """Undo what a bundle may change in its process, for the next bundle.

    These are the global random generators, and which warnings were shown already. What else a
    bundle sets (signals, logging, Hydra's configuration) it sets for each bundle anew.
    """
    import numpy as np
    import torch
    from transformers.utils import logging as transformers_logging

    python, numpy, seed = random.getstate(), np.random.get_state(), torch.initial_seed()
    state = torch.get_rng_state()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        # Those of GPUs too.
        torch.manual_seed(seed)
        torch.set_rng_state(state)
        transformers_logging.warning_once.cache_clear()


def _without_hydra(config: DictConfig) -> tuple[DictConfig, list[str]]:
    """Return a cell's configuration without Hydra's part, and its overrides as typed."""
    overrides = [str(override) for override in config.hydra.overrides.task]
    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return own, overrides
