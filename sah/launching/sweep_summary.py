"""The summary at the end of a sweep: the outcome of each cell, shown and in summary.json."""

import logging
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.launching.outcome import UNFINISHED, CellOutcome
from sah.results.files import write_json
from sah.results.store import read_result
from sah.terminal import plain

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"

_MOST_ROWS = 30


def write_summary(folder: Path, outcomes: Sequence[CellOutcome], started: float) -> None:
    """Write summary.json."""
    write_json(
        folder / SUMMARY,
        {
            "counts": dict(Counter(outcome.outcome for outcome in outcomes)),
            "seconds": time.monotonic() - started,
            "prefill_seconds_saved": _prefill_saved(outcomes)[1],
            "rerun": rerun_command(outcomes),
            "cells": [_row(outcome) for outcome in outcomes],
        },
    )


def show_summary(outcomes: Sequence[CellOutcome], folder: Path) -> None:
    """Show the counts, the unfinished cells and the command that runs them, in 80 columns.

    A reason that several cells have is told once.
    """
    console = Console(stderr=True, highlight=False)
    counts = Counter(outcome.outcome for outcome in outcomes)
    console.print(Text(", ".join(f"{number} {name}" for name, number in counts.items())))
    taken, saved = _prefill_saved(outcomes)
    if saved:
        console.print(
            Text(
                f"prefill took {taken:.1f} s; separately it would have taken {saved + taken:.1f} s"
            )
        )
    bad = [outcome for outcome in outcomes if outcome.outcome in UNFINISHED]
    if not bad:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("#")
    table.add_column("why")
    table.add_column("experiment")
    told: dict[str, int] = {}
    for outcome in bad[:_MOST_ROWS]:
        reason, number = outcome.reason or outcome.outcome, outcome.cell.number
        first = told.setdefault(reason, number)
        if first != number and outcome.outcome == "failed":
            reason = f"as #{first}"
        table.add_row(str(number), Text(plain(reason)), Text(plain(outcome.cell.label)))
    console.print(table)
    if len(bad) > _MOST_ROWS:
        console.print(Text(f"and {len(bad) - _MOST_ROWS} more in {folder / SUMMARY}"))
    console.print(Text("run only those:"))
    console.print(Text(f"  {rerun_command(outcomes)}"), soft_wrap=True)


def rerun_command(outcomes: Sequence[CellOutcome]) -> str | None:
    """Return a command that runs the unfinished cells; None if every cell has a result.

    It is the command as typed without resume=, which skips the completed cells.
    """
    if not any(outcome.outcome in UNFINISHED for outcome in outcomes):
        return None
    program = Path(sys.argv[0]).name
    start = ["python", sys.argv[0]] if program.endswith(".py") else [program]
    typed = [word for word in sys.argv[1:] if not word.lstrip("+").startswith("resume=")]
    return shlex.join([*start, *typed])


def _prefill_saved(outcomes: Sequence[CellOutcome]) -> tuple[float, float]:
    """Return the seconds that prefill took in this sweep, and the seconds that sharing saved."""
    total = saved = 0.0
    for outcome in outcomes:
        if outcome.outcome == "done":
            result = read_result(outcome.cell.directory)
            if result is not None:
                total += result.timing.prefill_seconds
                saved += result.timing.prefill_seconds_saved
    return total - saved, saved


def _row(outcome: CellOutcome) -> dict[str, Any]:
    return {
        "number": outcome.cell.number,
        "outcome": outcome.outcome,
        "reason": outcome.reason or None,
        "overrides": list(outcome.cell.overrides),
        "directory": str(outcome.cell.directory),
    }
