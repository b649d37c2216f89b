"""Optional trackers: MLflow, TensorBoard, Weights & Biases, trackio."""

from sah.tracking.record import (
    LiveRun,
    LiveTracker,
    NoTracker,
    Record,
    Tracker,
    require_working,
)
from sah.tracking.reporter import Reporter

__all__ = [
    "LiveRun",
    "LiveTracker",
    "NoTracker",
    "Record",
    "Reporter",
    "Tracker",
    "require_working",
]
