"""Run jobs on this machine: one per slot, each under a supervisor."""

import logging
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.local.local import LocalExecutor, LocalJob

from sah.execution.signals import SWEEP_SIGNALS, signals_interrupt
from sah.launching.bundles import Bundle, BundleJob
from sah.launching.gpus import chosen_gpus, divide_gpus
from sah.launching.outcome import CellWatch
from sah.launching.settings import LauncherSettings
from sah.launching.supervisor import start

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
        found = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.threads is not None:
            found |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        return found


@dataclass(frozen=True, kw_only=True)
class _Running:
    bundle: Bundle
    process: "subprocess.Popen[bytes]"
    watch: CellWatch
    started: float
    """On the monotonic clock."""
    log: Path


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


class SupervisedExecutor(LocalExecutor):
    """submitit's local executor, starting processes under a supervisor in a slot's environment."""

    def __init__(self, folder: Path, grace_seconds: float) -> None:
        super().__init__(folder)
        self.grace_seconds = grace_seconds
        self.environment: Mapping[str, str] = {}
        self.log = Path(os.devnull)
        self.process: subprocess.Popen[bytes]

    def _submit_command(self, command: str) -> LocalJob[Any]:
        environment = {
            **os.environ,
            **self.environment,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_GLOBALID": "0",
            "SUBMITIT_LOCAL_LOCALID": "0",
        }
        with open(self.log, "ab") as output:
            self.process = start(shlex.split(command), environment, output, self.grace_seconds)
        return LocalJob(
            folder=self.folder, job_id=str(self.process.pid), process=self.process, tasks=[0]
        )


def run_pool(
    bundles: Sequence[Bundle],
    make_job: Callable[[Bundle], BundleJob],
    slots: Sequence[Slot],
    folder: Path,
    settings: LauncherSettings,
    update: Callable[[Mapping[int, str]], None],
) -> None:
    """Run every bundle, at most one in a slot; each cell's outcome is in its directory.

    Args:
        bundles: in starting order.
        make_job: makes what a process runs.
        slots: at least one.
        folder: for pickles and logs; must be new, since submitit names jobs by process id.
        settings: times and delays.
        update: called repeatedly with the running cells and the names of their slots.

    Raises:
        Interrupted: on SIGINT, SIGTERM or SIGHUP, once no process is left.
    """
    executor = SupervisedExecutor(folder / "%j", settings.grace_seconds)
    waiting = deque(bundles)
    free = deque(range(len(slots)))
    running: dict[int, _Running] = {}
    with signals_interrupt(SWEEP_SIGNALS):
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.popleft()
                    running[slot] = _start(executor, waiting.popleft(), make_job, slots[slot])
                ended = [slot for slot, job in running.items() if _is_over(job, settings)]
                for slot in ended:
                    _settle(running.pop(slot))
                    free.append(slot)
                update(
                    {
                        cell.number: _name(slot, slots)
                        for slot, job in running.items()
                        for cell in job.bundle.cells
                        if not job.watch.has_ended(cell)
                    }
                )
                if not ended:
                    time.sleep(settings.poll_seconds)
        finally:
            _stop(list(running.values()), settings.grace_seconds)


def _start(
    executor: SupervisedExecutor,
    bundle: Bundle,
    make_job: Callable[[Bundle], BundleJob],
    slot: Slot,
) -> _Running:
    executor.environment = slot.environment
    executor.log = Path(str(executor.folder).removesuffix("%j")) / f"{bundle.number}.log"
    watch, started = CellWatch(bundle.cells), time.monotonic()
    executor.submit(make_job(bundle))
    return _Running(
        bundle=bundle,
        process=executor.process,
        watch=watch,
        started=started,
        log=executor.log,
    )


def _is_over(running: _Running, settings: LauncherSettings) -> bool:
    if running.process.poll() is not None:
        return True
    if _limit_is_over(running, settings):
        _stop([running], settings.grace_seconds)
        message = (
            f"hydra.launcher.timeout_min={settings.timeout_min} is over; what was answered is kept"
        )
        running.watch.end(running.bundle.cells, "timeout", message)
        return True
    return False


def _limit_is_over(running: _Running, settings: LauncherSettings) -> bool:
    limit = settings.timeout_min
    return limit is not None and time.monotonic() - running.started > 60 * limit


def _settle(running: _Running) -> None:
    """Kill what is left of a job's session, and record how the job ended."""
    # Grandchildren (data loaders) would hold the GPU of the next job.
    _kill_session(running.process)
    code = running.process.returncode
    # 128 + n: signal n killed the job; -n: signal n killed the supervisor itself.
    number = -code if code < 0 else code - 128
    if number in list(signal.Signals):
        name = signal.Signals(number).name
        # The kernel's out-of-memory killer sends KILL and leaves no other trace.
        kind = "memory" if name == "SIGKILL" else "unknown"
        if number in SWEEP_SIGNALS:
            kind = "interrupt"
        message = f"killed by {name}; its log is {running.log}"
    elif code:
        kind, message = "unknown", f"ended with status {code}; its log is {running.log}"
    else:
        return
    for cell in running.bundle.cells:
        running.watch.ensure_error(cell, kind, message)


def _stop(jobs: Sequence[_Running], grace_seconds: float) -> None:
    """Stop jobs: their supervisors interrupt them, wait, and kill."""
    for job in jobs:
        if job.process.poll() is None:
            job.process.terminate()
    end = time.monotonic() + grace_seconds + 5
    for job in jobs:
        try:
            job.process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning("process %d does not end; killing it", job.process.pid)
        _kill_session(job.process)
        job.process.wait()


def _kill_session(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _name(number: int, slots: Sequence[Slot]) -> str:
    """Return the name of a slot; those without a GPU are counted."""
    gpus = slots[number].gpus
    if gpus:
        return f"GPU {','.join(gpus)}"
    return "CPU" if len(slots) == 1 else f"CPU {number + 1}"
