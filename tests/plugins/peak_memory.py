"""The memory of tensors, measured by torch's profiler."""

import itertools
from collections.abc import Callable
from typing import TypeVar

from torch.profiler import ProfilerActivity, profile

Kept = TypeVar("Kept")


def peak_bytes(action: Callable[[], Kept]) -> tuple[int, Kept]:
    """Return the peak of memory above that at the beginning, and what the action returned."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = action()
    # profiler.events() omits allocations inside operators.
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = itertools.accumulate(size for _, size in sorted(changes, key=lambda change: change[0]))
    return max(held, default=0), kept
