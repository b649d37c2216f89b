"""Run jobs on this machine: one per slot, each under a supervisor."""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import cloudpickle_dump

from sah.execution.signals import SWEEP_SIGNALS, signals_interrupt
from sah.launching.bundles import Bundle, take_next
from sah.launching.gpus import chosen_gpus, divide_gpus
from sah.launching.outcome import CellWatch
from sah.launching.processes.bundle_job import BundleJob
from sah.launching.processes.fork_server import ForkServer
from sah.launching.processes.worker import Worker, wait_for
from sah.launching.settings import LauncherSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Room for one job at a time: some GPUs, or the CPU."""

    gpus: tuple[str, ...]
    """Empty on the CPU."""
    threads: int | None
    """Threads for torch; None for torch's default."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a job in this slot."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}

    @property
    def threads_environment(self) -> dict[str, str]:
        """Environment variables that torch reads when it is imported."""
        if self.threads is None:
            return {}
        return {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A bundle at work in a process."""

    bundle: Bundle
    worker: Worker
    watch: CellWatch
    started: float
    """On the monotonic clock."""
    log: Path | None = None
    """Of the process; None if it writes where this process does."""


def find_slots(settings: LauncherSettings) -> list[Slot]:
    """Find the slots of this machine and check every GPU.

    Raises:
        ConfigurationError: if a requested GPU cannot be used.
    """
    gpus = chosen_gpus(settings.gpus) if settings.gpus_per_job else []
    if gpus:
        found = [
            Slot(gpus=group, threads=None) for group in divide_gpus(gpus, settings.gpus_per_job)
        ]
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = max(1, (cores or 1) // settings.cpu_workers)
        # A single worker gets torch's default.
        threads = share if settings.cpu_workers > 1 else None
        found = [Slot(gpus=(), threads=threads)] * settings.cpu_workers
    return found[: settings.max_concurrent]


def run_pool(
    bundles: Sequence[Bundle],
    make_job: Callable[[Bundle], BundleJob],
    slots: Sequence[Slot],
    folder: Path,
    settings: LauncherSettings,
    update: Callable[[Mapping[int, str]], None],
) -> None:
    """Run every bundle, at most one in a slot; each cell's outcome is in its directory.

    A slot's process goes on with the next waiting bundle of its model, if there is one
    (`settings.keep_model`).

    Args:
        bundles: in starting order.
        make_job: makes what a process runs.
        slots: at least one, all with the same number of threads.
        folder: for pickles and logs.
        settings: times and delays.
        update: called repeatedly with the running cells and the names of their slots.

    Raises:
        Interrupted: on SIGINT, SIGTERM or SIGHUP, once no process is left.
    """
    waiting = deque(bundles)
    free = deque(range(len(slots)))
    running: dict[int, Running] = {}

    def start(worker: Worker, bundle: Bundle) -> Running:
        job, log = folder / f"{bundle.number}.pickle", folder / f"{bundle.number}.log"
        cloudpickle_dump(make_job(bundle), job)
        watch = CellWatch(bundle.cells)
        worker.run(job, log)
        return Running(bundle=bundle, worker=worker, watch=watch, started=time.monotonic(), log=log)

    folder.mkdir(parents=True, exist_ok=True)
    with (
        signals_interrupt(SWEEP_SIGNALS),
        ForkServer(folder / "fork_server.log", slots[0].threads_environment) as server,
    ):
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.popleft()
                    worker = server.start(
                        slots[slot].environment,
                        keeps_model=settings.keep_model,
                        grace_seconds=settings.grace_seconds,
                    )
                    running[slot] = start(worker, waiting.popleft())
                for slot, job in list(running.items()):
                    if _is_over(job, settings):
                        settle(running.pop(slot))
                        free.append(slot)
                    elif job.worker.is_free:
                        following = take_next(waiting, job.bundle.model_key)
                        if following is None:
                            job.worker.finish()
                        else:
                            running[slot] = start(job.worker, following)
                update(
                    {
                        cell.number: _name(slot, slots)
                        for slot, job in running.items()
                        for cell in job.bundle.cells
                        if not job.watch.has_ended(cell)
                    }
                )
                if not (waiting and free):
                    wait_for([job.worker for job in running.values()], settings.poll_seconds)
        finally:
            stop([job.worker for job in running.values()], settings.grace_seconds)


def _is_over(running: Running, settings: LauncherSettings) -> bool:
    running.worker.look()
    if running.worker.exit_code is not None:
        return True
    if not running.worker.is_free and _limit_is_over(running, settings):
        stop([running.worker], settings.grace_seconds)
        message = (
            f"hydra.launcher.timeout_min={settings.timeout_min} is over; what was answered is kept"
        )
        running.watch.end(running.bundle.cells, "timeout", message)
        return True
    return False


def _limit_is_over(running: Running, settings: LauncherSettings) -> bool:
    limit = settings.timeout_min
    return limit is not None and time.monotonic() - running.started > 60 * limit


def settle(running: Running) -> None:
    """Record how a process ended whose cells left no outcome, and kill what is left of it."""
    running.worker.end()
    code = running.worker.exit_code
    if code is None or code == 0:
        return
    log = "" if running.log is None else f"; its log is {running.log}"
    # 128 + n: it ended by itself after signal n; -n: signal n killed it.
    number = -code if code < 0 else code - 128
    if number in list(signal.Signals):
        name = signal.Signals(number).name
        # The kernel's out-of-memory killer sends KILL and leaves no other trace.
        kind = "memory" if name == "SIGKILL" else "unknown"
        if number in SWEEP_SIGNALS:
            kind = "interrupt"
        message = f"killed by {name}{log}"
    else:
        kind, message = "unknown", f"ended with status {code}{log}"
    for cell in running.bundle.cells:
        running.watch.ensure_error(cell, kind, message)


def stop(workers: Sequence[Worker], grace_seconds: float) -> None:
    """Stop workers: their supervisors interrupt them, wait, and kill."""
    for worker in workers:
        worker.stop()
    end = time.monotonic() + grace_seconds + 5
    living = list(workers)
    while living and time.monotonic() < end:
        wait_for(living, 0.1)
        for worker in living:
            worker.look()
        living = [worker for worker in living if worker.exit_code is None]
    for worker in living:
        logger.warning("process %d does not end; killing it", worker.supervisor)
    for worker in workers:
        worker.end()


def _name(number: int, slots: Sequence[Slot]) -> str:
    """Return the name of a slot; those without a GPU are counted."""
    gpus = slots[number].gpus
    if gpus:
        return f"GPU {','.join(gpus)}"
    return "CPU" if len(slots) == 1 else f"CPU {number + 1}"
