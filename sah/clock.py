"""An arm's own time, in a job that works on several arms by turns."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sah.errors import ExperimentTimeout


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
