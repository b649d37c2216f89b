"""The end of a sweep: outcomes, results and the next command, shown and in summary.json."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.launching.outcome import UNFINISHED, CellOutcome, Outcome
from sah.results.files import write_json
from sah.results.schema import Result
from sah.results.show import command_line, folder_argument
from sah.results.store import read_result
from sah.terminal import plain

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"

_MOST_ROWS = 30
_MOST_RESULTS = 20
_MOST_COLUMNS = 80
# Ten thousand would take seconds, for a table of twenty rows.
_MOST_READ = 500
_WITH_RESULT = ("done", "finished", "repeated")


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
    """Show the counts and the unfinished cells with their reasons, in 80 columns.

    A reason that several cells have is told once.
    """
    console = Console(stderr=True, highlight=False)
    counts = Counter(outcome.outcome for outcome in outcomes)
    order = sorted(counts, key=get_args(Outcome).index)
    console.print(Text(", ".join(f"{counts[name]} {name}" for name in order)))
    taken, saved = _prefill_saved(outcomes)
    if saved:
        apart = _time(taken + saved)
        console.print(Text(f"prefill took {_time(taken)}; separately it would have taken {apart}"))
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


def show_results(outcomes: Sequence[CellOutcome]) -> None:
    """Show the results of a sweep as `sah report` does, and the command to type next."""
    # Imports polars and scipy, which a sweep does not need before.
    from sah.report.reading.collect import find
    from sah.report.tables.layout import show
    from sah.report.tables.overview import result_table

    complete = (one.cell.directory for one in outcomes if one.outcome in _WITH_RESULT)
    directories = [directory for directory in dict.fromkeys(complete) if directory.is_dir()]
    found = find(directories[:_MOST_READ])
    results = [content for content in found.contents.values() if isinstance(content, Result)]
    console = Console(highlight=False)
    console.width = min(_MOST_COLUMNS, console.width)
    roots = list(dict.fromkeys(one.cell.directory.parents[3] for one in outcomes))
    if results:
        table = result_table(results)
        console.print()
        notes = ["score: × 100; `sah report` explains the columns.", *table.notes]
        columns = [replace(column, meaning="") for column in table.columns]
        rows = table.rows[:_MOST_RESULTS]
        show(replace(table, columns=columns, rows=rows, notes=notes), console)
        more = len(directories) - min(len(table.rows), _MOST_RESULTS)
        if more > 0:
            console.print(Text(f"and {more} more: sah report{folder_argument(roots)}"))
    step = _next_step(outcomes, results, folder_argument(roots))
    console.print(Text(plain(f"\nnext: {step}")), soft_wrap=True)


def _next_step(outcomes: Sequence[CellOutcome], results: Sequence[Result], folder: str) -> str:
    again = rerun_command(outcomes)
    if again is not None:
        return f"{again}    # only what has no result"
    if any(one.outcome in ("detached", "elsewhere") for one in outcomes):
        return f"sah status{folder} --watch"
    attentions = {
        one.cell.directory.parents[1].name for one in outcomes if one.outcome in _WITH_RESULT
    }
    if "dense" not in attentions or len(attentions) == 1:
        return f"sah report{folder} --format html"
    seeds = {str(result.settings.get("seed")) for result in results}
    return f"sah compare{folder}" + (" --pool seed" if len(seeds) > 1 else "")


def rerun_command(outcomes: Sequence[CellOutcome]) -> str | None:
    """Return a command that runs the unfinished cells; None if every cell has a result.

    It is the command as typed without resume=, which skips the completed cells.
    """
    if not any(outcome.outcome in UNFINISHED for outcome in outcomes):
        return None
    return command_line(sys.argv[1:])


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


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def _row(outcome: CellOutcome) -> dict[str, Any]:
    return {
        "number": outcome.cell.number,
        "outcome": outcome.outcome,
        "reason": outcome.reason or None,
        "overrides": list(outcome.cell.overrides),
        "directory": str(outcome.cell.directory),
    }
