"""Sends the progress and the result of one experiment to its tracker, without delaying either."""

import logging
import threading
import time
from collections.abc import Mapping
from contextvars import copy_context

from sah.results.schema import Result
from sah.tracking.record import LiveRun, LiveTracker, NoTracker, Record, Tracker

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 10.0
_MOST_UPDATES = 100
_PATIENCE_SECONDS = 60.0
_PATIENCE_WITHOUT_RESULT_SECONDS = 5.0


class Reporter:
    """Calls a tracker in a thread of its own, one call after another.

    Answers never wait for a tracker, whose failures are only logged. Results are on disk before
    `finish`: what the tracker does not accept, `sah track` sends later. Only `wait` waits, and not
    for long.
    """

    def __init__(
        self,
        tracker: Tracker,
        start: Record,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """Begin, or continue, the tracker's run of an experiment.

        Args:
            tracker: gets live numbers if it is a LiveTracker, else the result only.
            start: the experiment.
            interval_seconds: between two updates.
            patience_seconds: how long after the result the tracker may take.
        """
        self._tracker = tracker
        self._start = start
        self._interval_seconds = interval_seconds
        self._patience_seconds = patience_seconds
        self._news = threading.Condition()
        self._progress: tuple[Mapping[str, float], int] | None = None
        self._last_done: int | None = None
        self._result: Result | None = None
        self._ended_at: float | None = None
        # Log records of the thread belong to this arm, and a stuck thread ends with the process.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name="tracker", daemon=True
        )
        self._run: LiveRun | None = None
        self._has_warned = False
        if type(tracker) is not NoTracker:
            self._thread.start()

    def advance(self, *, done: int, total: int, score: float | None) -> None:
        """Hand over the state of the experiment; only the latest is sent, at intervals.

        Args:
            done: number of answered examples.
            total: number of examples.
            score: mean of the scores so far; None without any.
        """
        last = self._last_done
        if last is not None and done < total and (done - last) * _MOST_UPDATES < total:
            return
        self._last_done = done
        numbers = {"progress/examples": float(done), "progress/share": done / total}
        if score is not None:
            numbers["progress/score"] = score
        with self._news:
            self._progress = (numbers, done)
            self._news.notify()

    def finish(self, result: Result) -> None:
        """Hand over the result."""
        self._end(result)

    def stop(self) -> None:
        """End without a result."""
        self._end(None)

    def wait(self) -> None:
        """Wait until the tracker has everything, or its time is over."""
        if self._ended_at is None or not self._thread.is_alive():
            return
        patience = self._patience_seconds
        if self._result is None:
            patience = min(patience, _PATIENCE_WITHOUT_RESULT_SECONDS)
        self._thread.join(max(0.0, self._ended_at + patience - time.monotonic()))
        if self._thread.is_alive() and self._result is not None:
            logger.warning(
                "the tracker did not accept the result within %.0f s; it is complete in %s, and "
                "`sah track` sends it later",
                *(patience, self._result.directory),
            )

    def _end(self, result: Result | None) -> None:
        with self._news:
            if self._ended_at is None:
                self._result = result
                self._ended_at = time.monotonic()
                self._news.notify()

    # -- in the thread ---------------------------------------------------------------------

    def _work(self) -> None:
        is_over = False
        while not is_over:
            with self._news:
                self._news.wait_for(lambda: self._progress or self._ended_at is not None)
                progress, self._progress = self._progress, None
                is_over = self._ended_at is not None
            if progress is not None and isinstance(self._tracker, LiveTracker):
                self._send(self._tracker, *progress)
            if not is_over:
                with self._news:
                    self._news.wait_for(lambda: self._ended_at is not None, self._interval_seconds)
        try:
            self._close()
        except Exception as error:  # noqa: BLE001 (third-party code on which nothing depends)
            if self._result is not None:
                logger.warning(
                    "the tracker did not accept the result (%s: %s); it is complete in %s, and "
                    "`sah track` sends it later",
                    *(type(error).__name__, error, self._result.directory),
                )

    def _send(self, tracker: LiveTracker, numbers: Mapping[str, float], done: int) -> None:
        try:
            if self._run is None:
                self._run = tracker.open(self._start)
            self._run.advance(numbers, done)
        except Exception as error:  # noqa: BLE001 (third-party code on which nothing depends)
            if not self._has_warned:
                logger.warning(
                    "the tracker did not accept live numbers (%s: %s); further ones and the result "
                    "are sent as they come",
                    *(type(error).__name__, error),
                )
            self._has_warned = True

    def _close(self) -> None:
        if self._result is None:
            if self._run is not None:
                self._run.stop()
        elif self._run is None:
            self._tracker.log(Record.from_result(self._result))
        else:
            self._run.finish(Record.from_result(self._result))
