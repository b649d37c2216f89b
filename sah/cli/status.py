"""`sah status`: the state of the experiments below a folder, from their files alone."""

import argparse
import logging
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.errors import DamagedResults
from sah.results.schema import Result
from sah.results.state import ExperimentState, read_state
from sah.results.store import CONFIG, RESULTS, read_result
from sah.results.sweep_folders import planned_directories
from sah.terminal import plain

logger = logging.getLogger(__name__)

_ORDER = ("running", "dead", "failed", "interrupted", "waiting", "done")


def main(arguments: list[str]) -> None:
    """Show the state of every experiment."""
    parser = argparse.ArgumentParser(
        prog="sah status", description="Show the state of the experiments below a folder."
    )
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    if options.json:
        sys.stdout.write(status_json(options.outputs) + "\n")
    else:
        show_status(options.outputs)


def find_states(root: Path) -> list[ExperimentState]:
    """Find every experiment below an output root, including planned cells of its sweeps.

    Reads files only, so it works for running, detached and dead sweeps alike.
    """
    folders = dict.fromkeys(path.parent for path in root.glob(f"*/*/*/*/{CONFIG}"))
    folders |= dict.fromkeys(path.parent for path in root.glob(f"*/*/*/*/{RESULTS}"))
    folders |= dict.fromkeys(planned_directories(root))
    states = [read_state(folder) for folder in folders]
    return sorted(states, key=lambda state: (_ORDER.index(state.state), str(state.directory)))


def show_status(root: Path) -> None:
    """Show the experiments as a table of 80 columns."""
    states = find_states(root)
    console = Console(highlight=False)
    if not states:
        console.print(Text(f"no experiments below {root}"))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("state", "examples", "experiment", ""):
        table.add_column(column, no_wrap=column in ("state", "examples"))
    for state in states:
        table.add_row(
            Text(state.state),
            _examples(state),
            Text(plain(str(state.directory.relative_to(root)))),
            Text(plain(_remark(state))),
        )
    console.print(table)
    counts = Counter[str](state.state for state in states)
    console.print(Text(", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name])))


def status_json(root: Path) -> str:
    """Return the experiments as a JSON list."""
    rows = [
        {**asdict(state), "directory": str(state.directory), "results": _numbers(state)}
        for state in find_states(root)
    ]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()


def _examples(state: ExperimentState) -> str:
    if state.state == "waiting":
        return ""
    return f"{state.answered}" if state.examples is None else f"{state.answered}/{state.examples}"


def _remark(state: ExperimentState) -> str:
    if state.state == "done":
        result = _result(state)
        if result is None:
            return f"{RESULTS} cannot be read"
        return "" if result.score is None else f"score {result.score:.3f}"
    if state.owner is not None:
        where = f"process {state.owner.pid} on {state.owner.host}"
        if state.owner.job:
            where = f"job {state.owner.job} on {state.owner.host}"
        return f"{where}, {(time.time() - state.owner.since) / 60:.0f} min"
    if state.state == "interrupted":
        return state.first_error_line.partition(": ")[2]
    return state.first_error_line


def _numbers(state: ExperimentState) -> dict[str, float | None] | None:
    result = _result(state)
    if result is None:
        return None
    names = ("score", "n", "density", "rows_read")
    return {name: getattr(result, name) for name in names}


def _result(state: ExperimentState) -> Result | None:
    """Read the result; None if there is none, or if it is damaged."""
    if state.state != "done":
        return None
    try:
        return read_result(state.directory)
    except DamagedResults as error:
        logger.warning("%s", error)
        return None
