"""run.log: the log of one arm, in a process that may work on several."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from sah.terminal import PlainFormatter

RUN_LOG = "run.log"

_current: ContextVar[Path | None] = ContextVar("arm", default=None)


class _RunLog(logging.FileHandler):
    """A log file that a full disk leaves incomplete without disturbing the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a line that the disk does not take; the terminal has it. Other errors show."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close, ignoring what the disk does not take."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(directory: Path) -> Iterator[None]:
    """Write run.log into an arm's directory: its own records, and those that belong to no arm."""
    handler = _RunLog(directory / RUN_LOG, encoding="utf-8")
    handler.setFormatter(PlainFormatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    handler.addFilter(lambda record: _current.get() in (None, directory))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def lines_of(directory: Path) -> Iterator[None]:
    """Route log records of this block to this arm's run.log only."""
    token = _current.set(directory)
    try:
        yield
    finally:
        _current.reset(token)
