"""Time, CPU time and peak memory of one arm's work, apart from the other arms of its job."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time, thread_time

import torch

from sah.errors import ExperimentTimeout

_PROCESS = Path("/proc/self")


class Clock:
    """Counts an arm's own work and the work it shares with other arms.

    The other arms' own time does not count, so `timeout_minutes` ends an arm where it would
    end if it ran alone.
    """

    def __init__(self, timeout_minutes: float | None) -> None:
        self.timeout_minutes = timeout_minutes
        self._seconds = 0.0
        self._started: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block; blocks of one clock must not be nested."""
        self._started = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - self._started
            self._started = None

    @property
    def seconds(self) -> float:
        """The seconds counted so far."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return self._seconds + now

    def check(self) -> None:
        """Check the limit; cheap enough to call between two tokens.

        Raises:
            ExperimentTimeout: if `timeout_minutes` is over.
        """
        if self.timeout_minutes is not None and self.seconds > 60 * self.timeout_minutes:
            raise ExperimentTimeout(
                f"timeout_minutes={self.timeout_minutes} is over; what was answered is kept, run "
                "again to go on (or raise timeout_minutes)"
            )


class CpuTime:
    """CPU time since it was made: that of the whole process, and that of this thread.

    A thread that decodes on a CPU computes or waits for the other threads of the model, which spin;
    CPU time well below wall time means that it had to wait for a core.
    """

    def __init__(self) -> None:
        self._process, self._thread = process_time(), thread_time()

    def used(self) -> tuple[float, float]:
        """Return the seconds of the process and of this thread."""
        return process_time() - self._process, thread_time() - self._thread


class PeakMemory:
    """The peak memory of the process during an arm's own and shared work.

    GPU memory if a GPU is in use, else main memory. Outside of Linux, where a peak cannot be
    reset, it is the peak of the whole process.
    """

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure inside the block."""
        _reset_peak()
        try:
            yield
        finally:
            self.bytes = max(self.bytes, _peak())


def _reset_peak() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        # 5 resets VmHWM to the memory held now.
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
