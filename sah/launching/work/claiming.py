"""A worker of a sweep: it computes bundles that no other worker computes, until none is left."""

import logging
import os
import random
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.types import HydraContext, RunMode
from submitit.core.utils import cloudpickle_dump

from sah.errors import ConfigurationError
from sah.execution.signals import SWEEP_SIGNALS, signals_interrupt
from sah.launching.bundles import Bundle, bundle_cells
from sah.launching.composer import Composer
from sah.launching.forecast.composing import main_hydra
from sah.launching.outcome import CellWatch, stamp
from sah.launching.plan import Cell
from sah.launching.pool import Running, settle, stop
from sah.launching.processes.bundle_job import BundleJob
from sah.launching.processes.fork_server import import_heavy
from sah.launching.processes.worker import Worker, fork_worker, wait_for
from sah.launching.work.plan_file import WorkPlan, read_plan
from sah.results.contents import fix_contents
from sah.results.identity import as_literals, directory
from sah.results.state import read_state
from sah.results.store import ERROR

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_WAIT_SECONDS = 2.0

_LEFT = ("waiting", "interrupted", "dead")
"""States of cells that are still to be computed."""

# A cell whose process ends without an error would otherwise be tried without end.
_MOST_TRIES = 3


class SweepWorker:
    """Computes cells of a sweep in processes that it forks, one at a time.

    It touches no device itself: a crash costs one bundle, whose cells fail as in a local sweep.
    It skips cells that are complete, that have failed, or that another worker computes, and takes
    over those of dead workers.
    """

    def __init__(self, folder: Path, *, grace_seconds: float, waits: bool = True) -> None:
        """Read the plan of a sweep, and go to the folder that it was started in, if there is one.

        Args:
            folder: of the sweep.
            grace_seconds: how long a job may take to end when the worker is stopped.
            waits: whether it waits for the cells of other workers, to take over those of dead ones.

        Raises:
            ConfigurationError: if there is no plan, or it cannot be read.
        """
        folder = folder.absolute()
        self._plan: WorkPlan = read_plan(folder)
        if Path(self._plan.working_folder).is_dir():
            os.chdir(self._plan.working_folder)
        cells = self._plan.cells(folder)
        self._bundles = bundle_cells(cells, slots=1)
        self._earlier = self._plan.earlier_errors()
        self._grace_seconds = grace_seconds
        self._waits = waits
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.pickle"
        self._job = folder / "jobs" / name
        self._job.parent.mkdir(parents=True, exist_ok=True)
        self._states: dict[int, str] = {}
        self._tries = Counter[int]()
        self._contents: dict[str, Any] = {}
        self._running: Running | None = None

    def work(self) -> Counter[str]:
        """Compute what is left; return the number of cells by state.

        The states are those of `sah status`; `failed here` are cells that this worker computed.

        Raises:
            ConfigurationError: if a cell composes to another experiment than the planned one.
            Interrupted: on SIGINT, SIGTERM or SIGHUP, once its job has ended.
        """
        with main_hydra(list(map(Path, self._plan.config_folders))) as hydra:
            master = hydra.compose_config(
                self._plan.config_name, list(self._plan.hydra_overrides), RunMode.MULTIRUN
            )
            loader: Any = hydra.config_loader
            composer = Composer(loader, master)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            import_heavy()
            with _children_end_by_themselves(), signals_interrupt(SWEEP_SIGNALS):
                try:
                    while (cells := self._next()) is not None:
                        configs = [(cell.number, self._compose(composer, cell)) for cell in cells]
                        self._compute(cells, BundleJob.of(configs, context))
                    self._end_process()
                finally:
                    if self._running is not None:
                        stop([self._running.worker], self._grace_seconds)
                    self._job.unlink(missing_ok=True)
        return self._counts()

    def _compute(self, cells: tuple[Cell, ...], job: BundleJob) -> None:
        """Compute cells in the process that has their model, or else in a new one."""
        if self._running is not None and self._running.bundle.model_key != cells[0].model_key:
            self._end_process()
        worker = self._fork() if self._running is None else self._running.worker
        cloudpickle_dump(job, self._job)
        self._running = Running(
            bundle=Bundle(cells=cells),
            worker=worker,
            watch=CellWatch(cells),
            started=time.monotonic(),
        )
        worker.run(self._job, None)
        self._wait(self._running)
        self._tries.update(cell.number for cell in cells)

    def _end_process(self) -> None:
        if self._running is not None:
            self._running.worker.finish()
            self._wait(self._running)

    def _next(self) -> tuple[Cell, ...] | None:
        """Return cells to compute together; None if the worker is done."""
        while (cells := self._take()) is None and self._waits:
            if "running" not in self._states.values():
                break
            # Frees the GPU for as long as others work.
            self._end_process()
            time.sleep(_WAIT_SECONDS)
        return cells

    def _take(self) -> tuple[Cell, ...] | None:
        """Choose cells to compute together; None if there are none now.

        Bundles of the model at hand come first, and those that a dead process left come last:
        they may have killed it. Among the others chance decides, so that workers rarely meet.
        """
        left = [cells for bundle in self._bundles if (cells := self._left(bundle))]
        if not left:
            return None
        model = None if self._running is None else self._running.bundle.model_key

        def rank(cells: Sequence[Cell]) -> tuple[bool, bool, float]:
            was_dead = any(self._states[cell.number] == "dead" for cell in cells)
            return was_dead, cells[0].model_key != model, random.random()

        return min(left, key=rank)

    def _left(self, bundle: Bundle) -> tuple[Cell, ...]:
        """Return the cells of a bundle that are still to be computed."""
        for cell in bundle.cells:
            if self._states.get(cell.number) not in ("done", "failed"):
                self._states[cell.number] = self._state(cell)
        return tuple(
            cell
            for cell in bundle.cells
            if self._states[cell.number] in _LEFT and self._tries[cell.number] < _MOST_TRIES
        )

    def _state(self, cell: Cell) -> str:
        state = read_state(cell.directory).state
        if state == "failed" and stamp(cell.directory / ERROR) == self._earlier.get(cell.number):
            # It failed before the sweep.
            return "waiting"
        return state

    def _compose(self, composer: Composer, cell: Cell) -> Any:
        config = composer.compose(cell.overrides)
        # Relative to the sweep, wherever this worker runs.
        config.output_root = as_literals(str(cell.directory.parents[3]))
        fix_contents(config, self._contents)
        if directory(config) != cell.directory:
            raise ConfigurationError(
                f"#{cell.number} {cell.label} is another experiment here ("
                f"{directory(config).name}) than in the plan ({cell.directory.name}): a yaml, a "
                "local file or the code has changed, or this host has other files; start the sweep "
                "again, or give this worker the same files"
            )
        if not config.resume:
            raise ConfigurationError(
                "resume=false computes what is complete again, and workers could not tell it from "
                "what they have computed; plan the sweep without it, with another output_root"
            )
        return config

    def _fork(self) -> Worker:
        ours, its = socket.socketpair()
        with its:
            supervisor = fork_worker(
                its, {}, keeps_model=True, grace_seconds=self._grace_seconds, closes=[ours]
            )
        return Worker(supervisor, ours)

    def _wait(self, running: Running) -> None:
        """Wait until a worker has ended its bundle, or has ended itself."""
        worker = running.worker
        while worker.exit_code is None and not worker.is_free:
            wait_for([worker], _POLL_SECONDS)
            worker.look()
        if worker.exit_code is not None:
            settle(running)
            self._running = None

    def _counts(self) -> Counter[str]:
        counts = Counter(self._states.values())
        counts["failed here"] = sum(
            self._states[number] in ("failed", *_LEFT) for number in self._tries
        )
        return counts


@contextmanager
def _children_end_by_themselves() -> Iterator[None]:
    """Let supervisors end without being waited for, as in the fork server."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
