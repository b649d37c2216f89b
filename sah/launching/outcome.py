"""What became of a cell, told by its files, and by its process where there are none."""

from dataclasses import dataclass
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


def ensure_error(cell: Cell, started: float, category: str, message: str) -> None:
    """Write error.json for a process that ended without a word of its own.

    Args:
        cell: whose process it was.
        started: when the process was started; an older error.json is not its word.
        category: one of sah.errors.CATEGORIES.
        message: what is known, with the place of the log.
    """
    state = read_state(cell.directory)
    if state.state in ("done", "running"):
        return
    path = cell.directory / ERROR
    if path.exists() and path.stat().st_mtime >= started:
        return
    write_error(cell.directory, category, "ProcessEnded", message, "")


def has_ended(cell: Cell, started: float) -> bool:
    """Whether a cell ended by itself since its job started; the other arms may go on.

    An interruption is no end: whoever interrupts the job says what it means.
    """
    if (cell.directory / RESULTS).exists():
        return True
    path = cell.directory / ERROR
    # Claimed: the error is one that is tried again.
    if (
        not path.exists()
        or path.stat().st_mtime < started
        or (cell.directory / CLAIM_NAME).exists()
    ):
        return False
    return read_state(cell.directory).state == "failed"


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
