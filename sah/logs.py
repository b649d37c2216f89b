"""The log of one arm, in a process that works on several."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

RUN_LOG = "run.log"

_current: ContextVar[Path | None] = ContextVar("arm", default=None)


@contextmanager
def log_file(directory: Path) -> Iterator[None]:
    """Write run.log into an arm's directory: its own lines, and those that are of no arm."""
    handler = logging.FileHandler(directory / RUN_LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
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
    """What is logged inside the with block is of this arm alone."""
    token = _current.set(directory)
    try:
        yield
    finally:
        _current.reset(token)
