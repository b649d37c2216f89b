"""What an arm's work costs, apart from that of the arms beside it: time and peak memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sah.errors import ExperimentTimeout

_PROCESS = Path("/proc/self")


class Clock:
    """Runs while its arm is at work, and while something is done that all arms need.

    The time that other arms take does not count, so that `timeout_minutes` ends an arm
    where it would end without the others.
    """

    def __init__(self, timeout_minutes: float | None) -> None:
        self.timeout_minutes = timeout_minutes
        self._seconds = 0.0
        self._started: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the with block; blocks of one clock are not nested."""
        self._started = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - self._started
            self._started = None

    @property
    def seconds(self) -> float:
        """Time counted so far."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return self._seconds + now

    def check(self) -> None:
        """Look at the time; cheap enough to be called between two tokens.

        Raises:
            ExperimentTimeout: if `timeout_minutes` is over.
        """
        if self.timeout_minutes is not None and self.seconds > 60 * self.timeout_minutes:
            raise ExperimentTimeout(
                f"timeout_minutes={self.timeout_minutes} is over; what was answered is kept, run "
                "again to go on (or raise timeout_minutes)"
            )


class PeakMemory:
    """The most memory this process held during an arm's own work, and the work it shares.

    On the GPU if one is in use, else in main memory. Where the system cannot forget a peak (any
    but Linux), it is the peak of the whole process.
    """

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what happens in the with block."""
        _forget_peak()
        try:
            yield
        finally:
            self.bytes = max(self.bytes, _peak())


def _forget_peak() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        # 5 resets VmHWM to what is held now.
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int:
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
