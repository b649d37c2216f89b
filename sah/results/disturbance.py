"""Conditions under which the speed of a result is hard to compare with that of others."""

from sah.results.schema import Result

CORE_SHARE = 0.9
"""On a CPU, the decoding thread has a core for at least this share of the time, or is held up."""
LOAD = 1.25
"""Processes that want to run, per core: above this, the machine was crowded at the start."""


def disturbances(result: Result) -> tuple[str, ...]:
    """Return `interrupted`, `crowded`, both or neither.

    Interrupted: several starts answered the examples, and each begins with caches that are cold.
    Crowded: other processes held up the thread that decodes, or the load at a start was high. On a
    GPU only the load can be seen, since the thread waits for the GPU, and nothing tells of other
    processes on it.
    """
    found = []
    timing, provenance = result.timing, result.provenance
    if (provenance.starts or 1) > 1:
        found.append("interrupted")
    held_up = (
        provenance.device == "cpu"
        and timing.decode_thread_seconds is not None
        and timing.decode_thread_seconds < CORE_SHARE * timing.decode_seconds
    )
    if held_up or (provenance.load_per_core or 0.0) > LOAD:
        found.append("crowded")
    return tuple(found)
