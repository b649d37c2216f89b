"""Optional trackers for finished results: MLflow, TensorBoard, Weights & Biases, trackio."""

from sah.tracking.record import NoTracker, Record, Tracker, require_working, track

__all__ = ["NoTracker", "Record", "Tracker", "require_working", "track"]
