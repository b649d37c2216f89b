"""The state of an experiment, read from its files alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sah.results.claim import ClaimView, read_claim
from sah.results.store import CONFIG, ERROR, PREDICTIONS, RESULTS

State = Literal["done", "running", "dead", "failed", "stopped", "waiting"]


@dataclass(frozen=True, kw_only=True)
class ExperimentState:
    """What a look at the directory tells."""

    directory: Path
    state: State
    """`dead`: claimed by a process that is gone; `stopped`: begun, and nobody at it."""
    answered: int
    """Examples answered so far."""
    examples: int | None
    """Examples in all; None if no process said so yet."""
    owner: ClaimView | None
    error: dict[str, Any] | None

    @property
    def first_error_line(self) -> str:
        """Category and first line of the last error, in one line."""
        if self.error is None:
            return ""
        lines = str(self.error.get("message", "")).strip().splitlines() or [""]
        return f"{self.error.get('category', 'unknown')}: {lines[0]}"


def read_state(directory: Path) -> ExperimentState:
    """Look at an experiment's directory; one that is not there is waiting."""
    owner = read_claim(directory)
    error = _json(directory / ERROR)
    state: State
    if (directory / RESULTS).exists():
        state = "done"
    elif owner is not None:
        state = "running" if owner.alive else "dead"
    elif error is not None and error.get("category") != "interrupt":
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
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    except FileNotFoundError:
        return 0


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None
