"""Whether the tracker can store results, asked before a sweep."""

from omegaconf import DictConfig

from sah.doctor.finding import Finding, error, ok
from sah.errors import ConfigurationError
from sah.execution.building import build
from sah.tracking import LiveTracker, NoTracker, Tracker, require_working


def check_tracker(config: DictConfig) -> list[Finding]:
    """Check that the tracker is installed and can be reached or written to.

    Args:
        config: the composed experiment.

    Returns:
        One finding; none without a tracker.
    """
    try:
        tracker: Tracker = build(config, "tracker")
        if type(tracker) is NoTracker:
            return []
        require_working(tracker)
    except ConfigurationError as problem:
        advice = "fix this, or leave out tracker= and use `sah track` after the sweep"
        return [error("tracker", str(problem).partition("; to run without it")[0], advice)]
    numbers = "live numbers and results" if isinstance(tracker, LiveTracker) else "results"
    return [ok("tracker", f"{tracker!r} can store {numbers}")]
