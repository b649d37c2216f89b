"""Run jobs on SLURM: submitted as arrays, watched until the last one has ended."""

import logging
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from sah.errors import ConfigurationError, Interrupted
from sah.execution.signals import SWEEP_SIGNALS, signals_interrupt
from sah.launching.bundles import Bundle, group_by_model
from sah.launching.outcome import CellWatch
from sah.launching.plan import Cell
from sah.launching.processes.bundle_job import BundleJob, SlurmJob
from sah.launching.settings import LauncherSettings

logger = logging.getLogger(__name__)

# SLURM's default; an array's size must stay below it.
_DEFAULT_MAX_ARRAY_SIZE = 1001

_ENDED = {
    "BOOT_FAIL": "unknown",
    "CANCELLED": "interrupt",
    "COMPLETED": "unknown",
    "DEADLINE": "timeout",
    "FAILED": "unknown",
    "NODE_FAIL": "unknown",
    "OUT_OF_MEMORY": "memory",
    # Where PreemptMode is CANCEL; a job that is requeued is PENDING again.
    "PREEMPTED": "interrupt",
    "TIMEOUT": "timeout",
    # Neither squeue nor sacct knows the job any more.
    "GONE": "unknown",
}

# A job of a failed node shows as ended for some seconds before it shows as requeued.
_SETTLED_SECONDS = 10.0

_DOWN = re.compile(r"\b(DOWN|DRAINED|NodeDown|BadConstraints|ReqNodeNotAvail)\b")

_PATIENCE_SECONDS = 60.0


def submit(
    bundles: Sequence[Bundle],
    make_job: Callable[[Bundle], BundleJob],
    folder: Path,
    name: str,
    settings: LauncherSettings,
) -> dict[str, list[Cell]]:
    """Submit jobs of `bundles_per_job` bundles, in arrays below the cluster's limit.

    Returns:
        The cells of each job, by its id.

    Raises:
        ConfigurationError: if there is no SLURM, or it refuses the jobs; with its own message.
    """
    if shutil.which("sbatch") is None:
        raise ConfigurationError(
            "hydra/launcher=slurm: there is no sbatch on this machine; use a login node of the "
            "cluster, or hydra/launcher=local"
        )
    executor = submitit.AutoExecutor(
        folder=folder / "%j", cluster="slurm", slurm_max_num_timeout=settings.max_num_timeout
    )
    step = max_array_size() - 1
    groups = group_by_model(bundles, settings.bundles_per_job)
    arrays = -(-len(groups) // step)
    executor.update_parameters(**_parameters(name, settings, arrays))
    submitted: dict[str, list[Cell]] = {}
    try:
        for start in range(0, len(groups), step):
            chunk = groups[start : start + step]
            jobs = executor.submit_array(
                [SlurmJob(bundles=tuple(map(make_job, group))) for group in chunk]
            )
            for job, group in zip(jobs, chunk, strict=True):
                submitted[job.job_id] = [cell for bundle in group for cell in bundle.cells]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        cancel(list(submitted))
        reason = str(error).strip().splitlines()
        raise ConfigurationError(
            f"SLURM refuses the jobs: {' '.join(line for line in reason if line)}"
        ) from error
    return submitted


def watch(
    submitted: Mapping[str, list[Cell]],
    watched: CellWatch,
    settings: LauncherSettings,
    update: Callable[[Mapping[int, str]], None],
) -> None:
    """Wait until every job has ended; each cell's outcome is in its directory.

    SLURM is asked about all jobs at once. Its states do not tell whether a cell is complete: a
    job whose task raised ends as COMPLETED too.

    Args:
        submitted: cells by job id.
        watched: the watch over all of them, begun before they were submitted.
        settings: times and delays.
        update: called repeatedly with the running cells and their jobs.

    Raises:
        Interrupted: on SIGINT, SIGTERM or SIGHUP, after the jobs are cancelled.
    """
    waiting = dict(submitted)
    ended_since: dict[str, float] = {}
    down_since: dict[str, float] = {}
    with signals_interrupt(SWEEP_SIGNALS):
        try:
            while waiting:
                states = job_states(list(waiting))
                for job, (state, reason) in states.items():
                    cells = waiting[job]
                    if state not in _ENDED:
                        ended_since.pop(job, None)
                        if _is_down(job, state, reason, down_since, settings):
                            _give_up(job, cells, reason, watched, settings)
                            del down_since[job]
                        continue
                    since = ended_since.setdefault(job, time.monotonic())
                    settled = time.monotonic() - since >= _SETTLED_SECONDS
                    if settled or all(map(watched.has_ended, cells)):
                        _settle(job, cells, state, watched)
                        del waiting[job]
                update(
                    {
                        cell.number: f"job {job}"
                        for job, (state, _) in states.items()
                        if job in waiting and state == "RUNNING"
                        for cell in waiting[job]
                        if not watched.has_ended(cell)
                    }
                )
                if waiting:
                    time.sleep(settings.poll_seconds)
        except Interrupted as interruption:
            cancel(list(waiting))
            cancelled = [cell.number for cells in waiting.values() for cell in cells]
            raise Interrupted(interruption.signum, cancelled=cancelled) from None
        except BaseException:
            cancel(list(waiting))
            raise


def job_states(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return state and reason of each job, from squeue, or from sacct where squeue forgot it."""
    arrays = sorted({job.split("_")[0] for job in jobs})
    listed = _ask("squeue", "--array", "-h", "-t", "all", "-o", "%i|%T|%r", "-j", ",".join(arrays))
    found: dict[str, tuple[str, str]] = {}
    for line in (listed or "").splitlines():
        job, state, reason = line.split("|", 2)
        found[job] = (state, reason)
    missing = [job for job in jobs if job not in found]
    if missing:
        history = _ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(missing))
        for line in (history or "").splitlines():
            job, _, state = line.partition("|")
            # "CANCELLED by 1000"
            found[job] = (state.split()[0], "")
    if listed is None and not found:
        # The controller does not answer at all: conclude nothing.
        return {job: ("UNKNOWN", "slurmctld does not answer") for job in jobs}
    return {job: found.get(job, ("GONE", "")) for job in jobs}


def free_slots(settings: LauncherSettings) -> int:
    """Estimate how many jobs could start now from the idle GPUs; at least 1.

    Without GPUs in the request or in SLURM's records it is `max_concurrent`, or 1.
    """
    most = settings.max_concurrent
    if settings.gpus_per_job == 0:
        return most or 1
    command = ["sinfo", "-h", "-N", "-t", "idle,mixed", "-O", "NodeHost:64,Gres:256,GresUsed:256"]
    if settings.partition is not None:
        command += ["-p", settings.partition]
    # A node in several partitions is listed once for each.
    nodes = {line[:64]: line for line in (_ask(*command) or "").splitlines()}
    free = sum(_gpus(line[64:320]) - _gpus(line[320:]) for line in nodes.values())
    slots = max(1, free // settings.gpus_per_job)
    return slots if most is None else min(slots, most)


def max_array_size() -> int:
    """Return the cluster's MaxArraySize."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "")
    return max(2, int(found.group(1))) if found else _DEFAULT_MAX_ARRAY_SIZE


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; jobs that have ended are ignored."""
    if jobs:
        logger.warning("cancelling %d jobs", len(jobs))
        _ask("scancel", *jobs)


def _gpus(gres: str) -> int:
    """Count the GPUs that sinfo lists, e.g. gpu:a100:4(S:0-1) or gpu:(null):2(IDX:0,3)."""
    return sum(int(count) for count in re.findall(r"\bgpu:(?:[^:,\s]+:)?(\d+)", gres))


def _parameters(name: str, settings: LauncherSettings, arrays: int) -> dict[str, Any]:
    at_once = settings.max_concurrent
    wanted = {
        "name": name,
        "timeout_min": math.ceil(settings.timeout_min or 24 * 60),
        "nodes": 1,
        "tasks_per_node": 1,
        "gpus_per_node": settings.gpus_per_job or None,
        "cpus_per_task": settings.cpus_per_job,
        "mem_gb": settings.mem_gb,
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_qos": settings.qos,
        "slurm_constraint": settings.constraint,
        # The limit applies to each array, not to all together.
        "slurm_array_parallelism": at_once and max(1, at_once // arrays),
        "slurm_signal_delay_s": settings.signal_delay_s,
        "slurm_setup": list(settings.setup) or None,
        "slurm_additional_parameters": dict(settings.additional_parameters) or None,
        "stderr_to_stdout": True,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _settle(job: str, cells: Sequence[Cell], state: str, watched: CellWatch) -> None:
    message = (
        f"SLURM job {job} ended as {state} without a result; its log is in the folder of the sweep"
    )
    for cell in cells:
        watched.ensure_error(cell, _ENDED[state], message)


def _is_down(
    job: str,
    state: str,
    reason: str,
    down_since: dict[str, float],
    settings: LauncherSettings,
) -> bool:
    """Whether a job has waited `down_minutes` for nodes that are down."""
    if state != "PENDING" or not _DOWN.search(reason):
        down_since.pop(job, None)
        return False
    since = down_since.setdefault(job, time.monotonic())
    return time.monotonic() - since > 60 * settings.down_minutes


def _give_up(
    job: str, cells: Sequence[Cell], reason: str, watched: CellWatch, settings: LauncherSettings
) -> None:
    message = f"SLURM job {job} waited {settings.down_minutes} min for nodes: {reason}"
    watched.end(cells, "unknown", message)
    cancel([job])


def _ask(*command: str) -> str | None:
    """Return the output of a SLURM command; None if it fails or does not answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        logger.warning("%s: %s", command[0], error)
        return None
    if done.returncode != 0:
        logger.debug("%s: %s", " ".join(command), done.stderr.strip())
        return None
    return done.stdout
