"""`sah status`: the state of the experiments below a folder, from their files alone."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.cli.arguments.parser import Parser
from sah.cli.report import add_outputs
from sah.errors import DamagedResults
from sah.report.reading.collect import find
from sah.results.contents import vanished
from sah.results.schema import Result
from sah.results.state import ExperimentState, read_state
from sah.results.sweep_folders import planned_directories
from sah.terminal import plain

logger = logging.getLogger(__name__)

_ORDER = ("running", "dead", "failed", "interrupted", "waiting", "done")


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser("status", "Show the state of the experiments below a folder.")
    add_outputs(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def main(arguments: list[str]) -> None:
    """Show the state of every experiment."""
    options = make_parser().parse(arguments)
    experiments = find_experiments(options.outputs)
    if options.json:
        sys.stdout.write(status_json(experiments) + "\n")
    else:
        show_status(experiments, options.outputs)
    if any(
        isinstance(one.result, DamagedResults) and one.state.directory in options.outputs
        for one in experiments
    ):
        sys.exit(1)


@dataclass(frozen=True, kw_only=True)
class FoundExperiment:
    """An experiment below one of the folders."""

    state: ExperimentState
    result: Result | DamagedResults | None
    """None if it is not complete."""
    vanished: Sequence[str] = ()
    """What the result read and is no longer on this disk, in sentences."""


def find_experiments(roots: Sequence[Path]) -> list[FoundExperiment]:
    """Find every experiment below some folders, including planned cells of their sweeps.

    Reads files only, so it works for running, detached and dead sweeps alike. Copies and damaged
    results are named in warnings.
    """
    # A sweep may not have made its output root yet.
    found = find([root for root in roots if root.is_dir()])
    found.warn_of_copies()
    contents = dict(found.contents)
    present = {directory.resolve() for directory in (*contents, *found.copies)}
    for root in roots:
        for directory in planned_directories(root):
            if directory.resolve() not in present:
                contents.setdefault(directory, None)
    # Results of a sweep read the same files.
    known: dict[str, list[str]] = {}
    experiments = [
        FoundExperiment(
            state=read_state(directory), result=content, vanished=_vanished(content, known)
        )
        for directory, content in contents.items()
    ]
    for experiment in experiments:
        if isinstance(experiment.result, DamagedResults):
            logger.warning("%s", plain(str(experiment.result)))
    return sorted(
        experiments, key=lambda one: (_ORDER.index(one.state.state), str(one.state.directory))
    )


def show_status(experiments: Sequence[FoundExperiment], roots: Sequence[Path]) -> None:
    """Show the experiments as a table of 80 columns."""
    console = Console(highlight=False)
    if not experiments:
        console.print(Text(f"no experiments below {', '.join(map(str, roots))}"))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("state", "examples", "experiment", ""):
        table.add_column(column, no_wrap=column in ("state", "examples"))
    for experiment in experiments:
        state, directory = experiment.state, experiment.state.directory
        # Relative to the only folder; several have names in common.
        is_below = len(roots) == 1 and directory.is_relative_to(roots[0])
        shown = directory.relative_to(roots[0]) if is_below else directory
        table.add_row(
            Text(state.state),
            _examples(state),
            Text(plain(str(shown))),
            Text(plain(_remark(experiment))),
        )
    console.print(table)
    counts = Counter[str](experiment.state.state for experiment in experiments)
    console.print(Text(", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name])))


def status_json(experiments: Sequence[FoundExperiment]) -> str:
    """Return the experiments as a JSON list."""
    rows = [
        {
            **asdict(experiment.state),
            "directory": str(experiment.state.directory),
            "results": _numbers(experiment.result),
            "vanished": experiment.vanished,
        }
        for experiment in experiments
    ]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()


def _examples(state: ExperimentState) -> str:
    if state.state == "waiting":
        return ""
    return f"{state.answered}" if state.examples is None else f"{state.answered}/{state.examples}"


def _remark(experiment: FoundExperiment) -> str:
    state, result = experiment.state, experiment.result
    if isinstance(result, DamagedResults):
        return "damaged; see the warning"
    if result is not None:
        score = [] if result.score is None else [f"score {result.score:.3f}"]
        return "; ".join([*score, *experiment.vanished])
    if state.owner is not None:
        minutes = max(0.0, time.time() - state.owner.since) / 60
        return f"{state.owner.name}, {minutes:.0f} min"
    if state.state == "interrupted":
        return state.first_error_line.partition(": ")[2]
    return state.first_error_line


def _vanished(result: Result | DamagedResults | None, known: dict[str, list[str]]) -> Sequence[str]:
    if not isinstance(result, Result):
        return ()
    content = result.provenance.content
    key = repr(content)
    if key not in known:
        known[key] = vanished(content)
    return known[key]


def _numbers(result: Result | DamagedResults | None) -> dict[str, float | None] | None:
    if not isinstance(result, Result):
        return None
    names = ("score", "n", "density", "rows_read")
    return {name: getattr(result, name) for name in names}
