"""The process between a sweep and one of its jobs, forked like the job itself.

It runs one job in a session and a process group of its own. When the sweep dies in any way, or
asks the supervisor to stop, the job is interrupted and given time to write what it has; then its
whole group is killed, grandchildren included, because a process that still holds the GPU would
disturb the next job in its slot.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02


def supervise(
    work: Callable[[], None],
    report: Callable[[int, int | None], None],
    *,
    parent: int,
    grace_seconds: float,
) -> NoReturn:
    """Fork a job and supervise it in this process, which ends after it.

    Args:
        work: what the job does; ends its process.
        report: called with the id of the job's process when it begins, and again with its exit
            status when its group has ended; -n where signal n killed it.
        parent: the process that forked this one; its end stops the job.
        grace_seconds: how long the job may take to end when it is stopped.
    """
    is_stopped = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True

    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    # The server does not collect its children; this process does.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        # The job must receive what the supervisor handles, or the sweep ignored (nohup).
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        work()
    with suppress(OSError):
        # Whichever of the two comes first: a group must exist before it is signalled.
        os.setpgid(job, job)
    report(job, None)
    deadline: float | None = None
    while (code := _exit_status(job)) is None:
        is_stopped = is_stopped or os.getppid() != parent
        if is_stopped and deadline is None:
            os.kill(job, signal.SIGINT)
            deadline = time.monotonic() + grace_seconds
        if deadline is not None and time.monotonic() > deadline:
            os.kill(job, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    kill_group(job)
    report(job, code)
    # Nothing of the server that was forked may run here, such as its exit handlers.
    os._exit(0)


def kill_group(job: int) -> None:
    """Kill all processes of a job's group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(job, signal.SIGKILL)


def _exit_status(job: int) -> int | None:
    pid, status = os.waitpid(job, os.WNOHANG)
    return None if pid == 0 else os.waitstatus_to_exitcode(status)
