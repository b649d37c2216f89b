"""The page of folders that change: built again only when their results have changed."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sah.errors import SahError
from sah.results.schema import Result


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is below the folders at one moment."""

    version: str
    """Differs from that of another snapshot if their results may differ."""
    results: Sequence[Result]
    counts: Sequence[str]
    """How many experiments are done, running and failed, and the time left."""
    problems: Sequence[str]
    """Why experiments failed, and what is left out."""


@dataclass(frozen=True, kw_only=True)
class BuiltPage:
    """A page, and the snapshot that it shows."""

    version: str
    content: str
    problems: Sequence[str] = ()
    """What is left out of the page."""


class LivePage:
    """A page that is read and built when it is asked for, by one thread at a time.

    Between two readings, and between two builds, there is a pause in proportion to the time that
    the last one took: a page that is left open takes little from a sweep on the same machine.
    """

    def __init__(
        self,
        read: Callable[[], Snapshot],
        build: Callable[[Snapshot], BuiltPage],
        *,
        pause_seconds: float = 1.0,
        pause_factor: float = 4.0,
    ) -> None:
        """Read the folders for the first time.

        Args:
            read: returns the present snapshot.
            build: returns its page.
            pause_seconds: the shortest pause.
            pause_factor: the pause, as a multiple of the time that was needed.

        Raises:
            SahError: if the folders cannot be read.
        """
        self._read, self._build = read, build
        self._pause_seconds, self._pause_factor = pause_seconds, pause_factor
        self._lock = threading.RLock()
        self._built: BuiltPage | None = None
        self._next_build = 0.0
        self._problem = ""
        started = time.monotonic()
        self._snapshot = read()
        self._next_reading = self._after_pause(started)

    def state(self) -> dict[str, Any]:
        """Return the counts, the problems, and the version that `content` would have, as JSON."""
        with self._lock:
            self._read_again()
            built = () if self._built is None else self._built.problems
            problems = dict.fromkeys([self._problem, *self._snapshot.problems, *built])
            return {
                "version": self._version(),
                "counts": list(self._snapshot.counts),
                "problems": [one for one in problems if one],
            }

    def content(self) -> str:
        """Return the page."""
        with self._lock:
            self._read_again()
            if self._built is None or self._built.version != self._version():
                started = time.monotonic()
                self._built = self._build(self._snapshot)
                self._next_build = self._after_pause(started)
            return self._built.content

    def _read_again(self) -> None:
        started = time.monotonic()
        if started < self._next_reading:
            return
        try:
            self._snapshot, self._problem = self._read(), ""
        except SahError as error:
            # What was read last is still shown.
            self._problem = str(error)
        self._next_reading = self._after_pause(started)

    def _version(self) -> str:
        if self._built is not None and time.monotonic() < self._next_build:
            return self._built.version
        return self._snapshot.version

    def _after_pause(self, started: float) -> float:
        now = time.monotonic()
        return now + max(self._pause_seconds, self._pause_factor * (now - started))
