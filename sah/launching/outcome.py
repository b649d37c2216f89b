"""The outcome of a cell, read from its files, or from its process where it left none."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sah.launching.plan import Cell
from sah.results.claim import CLAIM_NAME
from sah.results.state import ExperimentState, read_state
from sah.results.store import ERROR, RESULTS, write_error

Outcome = Literal[
    "done",
    "finished",
    "repeated",
    "failed",
    "interrupted",
    "elsewhere",
    "detached",
    "not started",
]
Stamp = tuple[int, int]
"""The version of a file: its inode and time of change in nanoseconds."""

UNFINISHED = ("failed", "interrupted", "not started")
"""Outcomes without a result that the same command computes again."""


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """One row of the summary."""

    cell: Cell
    outcome: Outcome
    """`finished`: complete before the sweep; `elsewhere`: another process computes it."""
    reason: str = ""
    """Category and first line of the error; the progress of an interrupted cell."""


class CellWatch:
    """Detects by their files which cells have ended since the watch began.

    An error.json that exists already belongs to an earlier process. A new one is recognised by
    its inode and time of change, never by comparing dates, since clocks differ between hosts.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        """Note the present files; call before the jobs are started."""
        self._before = {cell.number: stamp(cell.directory / ERROR) for cell in cells}

    def has_ended(self, cell: Cell) -> bool:
        """Whether a cell ended by itself since then; other arms of its job may still run.

        An interruption does not count: whoever interrupts the job decides what it means.
        """
        if (cell.directory / RESULTS).exists():
            return True
        # Still claimed: the error is being retried.
        if not self._has_error(cell) or (cell.directory / CLAIM_NAME).exists():
            return False
        return read_state(cell.directory).state == "failed"

    def ensure_error(self, cell: Cell, category: str, message: str) -> None:
        """Write error.json for a process that ended without writing one.

        Args:
            cell: the cell that the process computed.
            category: one of sah.errors.CATEGORIES.
            message: what is known, with the path of the log.
        """
        _refresh_listing(cell.directory)
        if not self._has_error(cell):
            _write(cell, category, message)

    def end(self, cells: Iterable[Cell], category: str, message: str) -> None:
        """Write error.json for cells whose job was ended from outside, unless they ended before."""
        for cell in cells:
            _refresh_listing(cell.directory)
            if not self.has_ended(cell):
                _write(cell, category, message)

    def _has_error(self, cell: Cell) -> bool:
        now = stamp(cell.directory / ERROR)
        return now is not None and now != self._before[cell.number]


def _refresh_listing(directory: Path) -> None:
    """Make NFS list a directory anew: it caches missing files for up to a minute."""
    with suppress(FileNotFoundError):
        os.listdir(directory)


def stamp(path: Path) -> Stamp | None:
    """Identify a version of a file by its inode and time of change; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _write(cell: Cell, category: str, message: str) -> None:
    if read_state(cell.directory).state not in ("done", "running"):
        write_error(cell.directory, category, "ProcessEnded", message, "")


def outcome_of(cell: Cell, *, cancelled: bool = False) -> CellOutcome:
    """Read the outcome of a cell that this sweep no longer runs.

    Args:
        cell: of the sweep.
        cancelled: whether the sweep cancelled its job, which SLURM kills: its claim stays.
    """
    state: ExperimentState = read_state(cell.directory)
    if state.state == "done":
        return CellOutcome(cell=cell, outcome="done")
    if cancelled and state.state in ("running", "dead"):
        return _interrupted(cell, state)
    if state.state == "running":
        owner = state.owner
        assert owner is not None
        return CellOutcome(cell=cell, outcome="elsewhere", reason=owner.name)
    if state.state == "waiting":
        return CellOutcome(cell=cell, outcome="not started")
    # The same, where it was cancelled with scancel.
    was_cancelled = state.error is not None and state.error.category == "interrupt"
    if state.state == "interrupted" or (state.state == "dead" and was_cancelled):
        return _interrupted(cell, state)
    reason = state.first_error_line or f"unknown: its process left no error.json ({state.state})"
    return CellOutcome(cell=cell, outcome="failed", reason=reason)


def _interrupted(cell: Cell, state: ExperimentState) -> CellOutcome:
    reason = f"interrupted, {state.progress}"
    return CellOutcome(cell=cell, outcome="interrupted", reason=reason)
