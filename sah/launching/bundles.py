"""Bundles: cells that share a model and prefills, and run as the arms of one job."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from sah.launching.plan import Cell

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The cells of one job: it loads one model and prefills each context once."""

    cells: tuple[Cell, ...]
    """At least one, in the order of the sweep."""

    @property
    def number(self) -> int:
        """The number of its first cell, which names the job."""
        return self.cells[0].number


@dataclass(frozen=True, kw_only=True)
class BundleJob:
    """What submitit pickles and runs in a process of its own.

    It carries the configurations as they were composed at the start of the sweep: editing a
    yaml file while jobs are queued has no effect.
    """

    configs: tuple[DictConfig, ...]
    hydra_context: HydraContext
    task_function: TaskFunction
    """Runs a single cell."""
    singletons: Mapping[Any, Any]

    def __call__(self) -> str:
        """Run the cells; return the name of Hydra's job status.

        The outcome of each cell is in its directory; nothing else has to be pickled.
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
        """Submit the same job again after a preemption: all state is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run_arms(self, _: DictConfig) -> None:
        from sah.errors import category
        from sah.execution.attempts import compute_arms
        from sah.execution.progress import quiet_libraries
        from sah.results.show import show_result

        quiet_libraries()
        outcomes = compute_arms([_without_hydra(config) for config in self.configs])
        for outcome in outcomes:
            if outcome.result is not None:
                show_result(outcome.result)
            elif outcome.error is not None:
                error = outcome.error
                logger.error("%s: %s", category(error), error, exc_info=error)


def bundle_cells(cells: Sequence[Cell], slots: int) -> list[Bundle]:
    """Put cells that may share prefills into one job, but leave no slot idle.

    Args:
        cells: the pending ones, each with its own `bundle_max`.
        slots: jobs that can run at once. The largest bundle is halved until there are this
            many jobs or only single cells are left.

    Returns:
        Bundles in the order of their first cells.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        key = f"cell {cell.number}" if cell.shared_key is None else cell.shared_key
        groups.setdefault(key, []).append(cell)
    parts = [part for group in groups.values() for part in _within_limit(group)]
    while len(parts) < slots:
        # The first of the largest, so that the split is deterministic.
        largest = max(range(len(parts)), key=lambda n: len(parts[n]), default=None)
        if largest is None or len(parts[largest]) == 1:
            break
        parts[largest : largest + 1] = _evenly(parts[largest], 2)
    bundles = [Bundle(cells=tuple(part)) for part in parts]
    return sorted(bundles, key=lambda bundle: bundle.number)


def _within_limit(group: list[Cell]) -> list[list[Cell]]:
    limit = group[0].bundle_max
    return [group] if limit is None else _evenly(group, -(-len(group) // limit))


def _evenly(cells: list[Cell], parts: int) -> list[list[Cell]]:
    """Split into consecutive parts whose sizes differ by at most one."""
    size, larger = divmod(len(cells), parts)
    found, start = [], 0
    for number in range(parts):
        stop = start + size + (number < larger)
        found.append(cells[start:stop])
        start = stop
    return found


def _without_hydra(config: DictConfig) -> tuple[DictConfig, list[str]]:
    """Return a cell's configuration without Hydra's part, and its overrides as typed."""
    overrides = [str(override) for override in config.hydra.overrides.task]
    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return own, overrides
