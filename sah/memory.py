"""How much memory the work of one arm held, apart from that of the arms beside it."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


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
