"""What became of a cell, told by its files, and by its process where there are none."""

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

Outcome = Literal["done", "finished", "repeated", "failed", "elsewhere", "detached", "not started"]


@dataclass(frozen=True, kw_only=True)
class CellOutcome:
    """One row of the summary."""

    cell: Cell
    outcome: Outcome
    """`finished` before the sweep; `elsewhere`: another process is at it."""
    reason: str = ""
    """Category and first line of the error."""


class CellWatch:
    """What becomes of cells from now on, by their files alone: the date does not count.

    An error.json that is there already is the word of an earlier process.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        """Look at the cells before their jobs are started."""
        self._before = {cell.number: _stamp(cell.directory / ERROR) for cell in cells}

    def has_ended(self, cell: Cell) -> bool:
        """Whether a cell ended by itself since; the other arms of its job may go on.

        An interruption is no end: whoever interrupts the job says what it means.
        """
        if (cell.directory / RESULTS).exists():
            return True
        # Claimed: the error is one that is tried again.
        if not self._has_error(cell) or (cell.directory / CLAIM_NAME).exists():
            return False
        return read_state(cell.directory).state == "failed"

    def ensure_error(self, cell: Cell, category: str, message: str) -> None:
        """Write error.json for a process that ended without a word of its own.

        Args:
            cell: whose process it was.
            category: one of sah.errors.CATEGORIES.
            message: what is known, with the place of the log.
        """
        _look_again(cell.directory)
        if not self._has_error(cell):
            _write(cell, category, message)

    def end(self, cells: Iterable[Cell], category: str, message: str) -> None:
        """Write error.json for cells whose job was ended from outside, unless they had ended."""
        for cell in cells:
            _look_again(cell.directory)
            if not self.has_ended(cell):
                _write(cell, category, message)

    def _has_error(self, cell: Cell) -> bool:
        stamp = _stamp(cell.directory / ERROR)
        return stamp is not None and stamp != self._before[cell.number]


def _look_again(directory: Path) -> None:
    """Let NFS forget which files were not there: it believes that for up to a minute."""
    with suppress(FileNotFoundError):
        os.listdir(directory)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Differs for every version of a file; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _write(cell: Cell, category: str, message: str) -> None:
    if read_state(cell.directory).state not in ("done", "running"):
        write_error(cell.directory, category, "ProcessEnded", message, "")


def outcome_of(cell: Cell) -> CellOutcome:
    """What became of a cell that was to run, now that nobody of this sweep runs it."""
    state: ExperimentState = read_state(cell.directory)
    if state.state == "done":
        return CellOutcome(cell=cell, outcome="done")
    if state.state == "running":
        owner = state.owner
        assert owner is not None
        return CellOutcome(
            cell=cell, outcome="elsewhere", reason=f"process {owner.pid} on {owner.host}"
        )
    if state.state == "waiting":
        return CellOutcome(cell=cell, outcome="not started")
    reason = state.first_error_line or f"unknown: its process left no error.json ({state.state})"
    return CellOutcome(cell=cell, outcome="failed", reason=reason)
