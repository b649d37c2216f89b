"""The state of an experiment, read from its files alone."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sah.results.claim import ClaimView, read_claim
from sah.results.last_error import read_error
from sah.results.schema import LastError
from sah.results.store import CONFIG, RESULTS
from sah.results.stored_lines import PREDICTIONS

State = Literal["done", "running", "dead", "failed", "stopped", "waiting"]


@dataclass(frozen=True, kw_only=True)
class ExperimentState:
    """The state of one output directory."""

    directory: Path
    state: State
    """`dead`: claimed by a process that no longer exists; `stopped`: begun, but not claimed."""
    answered: int
    """Number of examples answered so far."""
    examples: int | None
    """Number of all examples; None while unknown."""
    owner: ClaimView | None
    """The process that holds the claim."""
    error: LastError | None

    @property
    def first_error_line(self) -> str:
        """Category of the last error and the first line of its message."""
        if self.error is None:
            return ""
        lines = self.error.message.strip().splitlines() or [""]
        return f"{self.error.category}: {lines[0]}"


def read_state(directory: Path) -> ExperimentState:
    """Read the state of an experiment; without a directory it is `waiting`."""
    owner, error = read_claim(directory), read_error(directory)
    state: State
    if os.path.lexists(directory / RESULTS):
        state = "done"
    elif owner is not None:
        state = "running" if owner.alive else "dead"
    elif error is not None and error.category != "interrupt":
        state = "failed"
    else:
        state = "stopped" if (directory / CONFIG).exists() else "waiting"
    return ExperimentState(
        directory=directory,
        state=state,
        answered=_lines(directory / PREDICTIONS),
        examples=owner.examples if owner else None,
        owner=owner,
        error=error,
    )


def _lines(path: Path) -> int:
    try:
        if not path.is_file():
            return 0
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    except OSError:
        # Missing, or it cannot be read.
        return 0
