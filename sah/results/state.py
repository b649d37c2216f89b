"""The state of an experiment, read from its files alone."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sah.results.claim import ClaimView, read_claim
from sah.results.schema import LastError
from sah.results.store import CONFIG, RESULTS, read_error
from sah.results.stored_lines import PREDICTIONS

State = Literal["done", "running", "dead", "failed", "interrupted", "waiting"]


@dataclass(frozen=True, kw_only=True)
class ExperimentState:
    """The state of one output directory."""

    directory: Path
    state: State
    """`dead`: claimed by a process that no longer exists.

    `interrupted`: begun and neither claimed nor failed; the same command resumes it.
    """
    answered: int
    """Number of examples answered so far."""
    examples: int | None
    """Number of all examples; None while unknown."""
    owner: ClaimView | None
    """The process that holds the claim."""
    error: LastError | None

    @property
    def progress(self) -> str:
        """The examples answered so far, in words."""
        of_all = "" if self.examples is None else f" of {self.examples}"
        return f"{self.answered}{of_all} answered"

    def rate(self, now: float) -> float | None:
        """Examples per second since its process claimed it; None if nothing tells.

        Args:
            now: seconds since the epoch, by the clock of the owner.
        """
        if self.state != "running" or self.owner is None:
            return None
        answered, seconds = self.answered - self.owner.answered, now - self.owner.since
        return answered / seconds if answered > 0 and seconds > 0 else None

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
        state = "interrupted" if error or (directory / CONFIG).exists() else "waiting"
    return ExperimentState(
        directory=directory,
        state=state,
        answered=_lines(directory / PREDICTIONS),
        examples=_examples(owner, error),
        owner=owner,
        error=error,
    )


def _examples(owner: ClaimView | None, error: LastError | None) -> int | None:
    if owner is not None and owner.examples is not None:
        return owner.examples
    return None if error is None else error.examples


def _lines(path: Path) -> int:
    try:
        if not path.is_file():
            return 0
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    except OSError:
        # Missing, or it cannot be read.
        return 0
