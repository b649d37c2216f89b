"""`sah status`: the state of the experiments below a folder, from their files alone."""

import logging
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import orjson
from rich.console import Console
from rich.text import Text

from sah.cli.arguments.parser import Parser
from sah.cli.report import add_selection
from sah.errors import DamagedResults, SahError
from sah.report.reading.collect import find
from sah.report.reading.select import parse_conditions, select
from sah.report.reading.unfinished import read_unfinished
from sah.report.tables.layout import show
from sah.report.tables.state_table import (
    STATES,
    FoundExperiment,
    differing_values,
    reasons,
    seconds_left,
    state_table,
    summary,
)
from sah.results.contents import vanished
from sah.results.schema import Result
from sah.results.show import folder_argument
from sah.results.state import read_state
from sah.results.sweep_folders import PlannedCell, planned_cells
from sah.terminal import plain

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 5.0
# Caption, head, rule, summary, next command and some reasons.
_OTHER_ROWS = 12


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "status",
        "Show the state of the experiments below a folder, those that failed first: examples "
        "answered, time left, what differs between them, and why they failed. Reads files only, "
        "so it works for running, detached and dead sweeps alike.",
        examples=[
            "status --watch",
            "status --where attention=quest,snapkv",
            "status outputs/llama --json",
        ],
        then="`sah report` shows the results; the command of a sweep, run again, computes what "
        "has no result",
    )
    add_selection(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it again every five seconds until nothing runs or waits; Ctrl-C ends it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def main(arguments: list[str]) -> None:
    """Show the state of every experiment; an error that the user can fix exits with a message."""
    parser = make_parser()
    options = parser.parse(arguments)
    if options.json and options.watch:
        parser.error("--json and --watch exclude each other: --json prints one state")
    try:
        experiments = chosen_experiments(options)
        if options.watch:
            experiments = _watch(options, experiments)
    except SahError as error:
        sys.exit(plain(f"sah status: {error}"))
    if options.json:
        sys.stdout.write(status_json(experiments) + "\n")
    elif not options.watch:
        show_status(experiments, options.outputs)
    if any(
        isinstance(one.result, DamagedResults) and one.state.directory in options.outputs
        for one in experiments
    ):
        sys.exit(1)


def chosen_experiments(options: Namespace) -> list[FoundExperiment]:
    """Find the experiments that the arguments choose.

    Raises:
        ConfigurationError: if --where names a key that none has.
    """
    experiments = find_experiments(options.outputs)
    conditions = parse_conditions(options.where)
    if not conditions or not experiments:
        return experiments
    chosen = {id(one) for one in select([one.described for one in experiments], conditions)}
    return [one for one in experiments if id(one.described) in chosen]


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
    planned: dict[Path, PlannedCell] = {}
    for root in roots:
        for directory, cell in planned_cells(root):
            planned[directory] = cell
            if directory.resolve() not in present:
                contents.setdefault(directory, None)
    # Results of a sweep read the same files.
    known: dict[str, list[str]] = {}
    experiments = [
        FoundExperiment(
            state=read_state(directory),
            result=content,
            described=content
            if isinstance(content, Result)
            else read_unfinished(directory, planned.get(directory)),
            vanished=_vanished(content, known),
        )
        for directory, content in contents.items()
    ]
    for experiment in experiments:
        if isinstance(experiment.result, DamagedResults):
            logger.warning("%s", plain(str(experiment.result)))
    return sorted(
        experiments, key=lambda one: (STATES.index(one.state.state), str(one.state.directory))
    )


def show_status(
    experiments: Sequence[FoundExperiment], roots: Sequence[Path], console: Console | None = None
) -> None:
    """Show the experiments as a table, then reasons of failures, a summary and the next command.

    Args:
        experiments: from `find_experiments`.
        roots: the folders that they are below.
        console: where only as many rows are shown as fit; None shows all on the terminal.
    """
    most = None if console is None else max(5, console.height - _OTHER_ROWS)
    console = console or Console(highlight=False)
    if not experiments:
        console.print(Text(plain(f"no experiments below {', '.join(map(str, roots))}")))
        return
    now = time.time()
    table = state_table(experiments, now, console.width)
    show(replace(table, rows=table.rows[:most]), console, advice="--json has every value")
    if most is not None and len(table.rows) > most:
        console.print(Text(f"and {len(table.rows) - most} more"))
    lines = reasons(experiments)
    if lines:
        console.print()
    for line in lines:
        console.print(Text(plain(line)), soft_wrap=True)
    console.print(Text("\n".join(["", *summary(experiments, now)])))
    console.print(Text(plain(f"next: {_next_step(experiments, roots)}")), soft_wrap=True)


def status_json(experiments: Sequence[FoundExperiment]) -> str:
    """Return the experiments as a JSON list."""
    now = time.time()
    rows = [
        {
            **asdict(experiment.state),
            "directory": str(experiment.state.directory),
            "results": _numbers(experiment.result),
            "vanished": experiment.vanished,
            "differs": differs,
            "seconds_left": seconds_left(experiment.state, now),
        }
        for experiment, differs in zip(experiments, differing_values(experiments), strict=True)
    ]
    return orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()


def _watch(options: Namespace, experiments: list[FoundExperiment]) -> list[FoundExperiment]:
    """Show the state again and again until nothing runs or waits; return the last one."""
    console = Console(highlight=False)
    while True:
        console.clear()
        show_status(experiments, options.outputs, console if console.is_terminal else None)
        if not any(one.state.state in ("running", "waiting") for one in experiments):
            return experiments
        time.sleep(_WATCH_SECONDS)
        experiments = chosen_experiments(options)


def _next_step(experiments: Sequence[FoundExperiment], roots: Sequence[Path]) -> str:
    states = {one.state.state for one in experiments}
    folder = folder_argument(roots)
    if states & {"running", "waiting"}:
        return f"sah status{folder} --watch"
    if states - {"done"}:
        return "the command of the sweep again, which computes only what has no result"
    return f"sah report{folder}"


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
    names = (
        *("score", "stderr", "n", "density", "rows_read", "resident", "prefill_density"),
        *("output_error", "recall", "answer_tokens", "keys_read"),
    )
    return {name: getattr(result, name) for name in names}
