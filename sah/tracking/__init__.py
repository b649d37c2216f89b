"""Copies of finished results in the tracker of one's choice."""

from sah.tracking.record import NoTracker, Record, Tracker, track

__all__ = ["NoTracker", "Record", "Tracker", "track"]
