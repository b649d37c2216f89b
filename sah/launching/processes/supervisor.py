"""The process between a local sweep and one of its jobs: `python -m sah.launching.supervisor`.

It runs one job in a session of its own. When the sweep dies in any way, or asks the supervisor to
stop, the job is interrupted and given time to write what it has; then the whole session is
killed, grandchildren included, because a process that still holds the GPU would disturb the
next job in its slot.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO

_SWEEP = "SAH_SWEEP_PID"
_GRACE = "SAH_GRACE_SECONDS"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    grace_seconds: float,
) -> "subprocess.Popen[bytes]":
    """Start a command under a supervisor, whose process id is the id of the session."""
    return subprocess.Popen(
        [sys.executable, "-m", "sah.launching.supervisor", *command],
        env={**environment, _SWEEP: str(os.getpid()), _GRACE: str(grace_seconds)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def main() -> None:
    """Run the command given as arguments until it ends or is told to stop."""
    ending = False

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    sweep = int(os.environ[_SWEEP])
    # submitit names a job by its process id; here that is the id of the session.
    environment = {**os.environ, "SUBMITIT_LOCAL_JOB_ID": str(os.getpid())}
    job = subprocess.Popen(sys.argv[1:], env=environment, preexec_fn=_default_signals)
    deadline: float | None = None
    while job.poll() is None:
        ending = ending or os.getppid() != sweep
        if ending and deadline is None:
            job.send_signal(signal.SIGINT)
            deadline = time.monotonic() + float(os.environ[_GRACE])
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    code = job.poll()
    # A living sweep reads the exit code and kills the session itself.
    if code is None or os.getppid() != sweep:
        os.killpg(0, signal.SIGKILL)
    assert code is not None, "the line above ends this process too"
    sys.exit(code if code >= 0 else 128 - code)


def _default_signals() -> None:
    # The job must receive what this process handles, or its parent ignored (nohup).
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
