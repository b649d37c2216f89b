"""`sah track`: send finished results to a tracker."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sah.cli.arguments.parser import Parser
from sah.errors import ConfigurationError, SahError
from sah.execution.building import build, compose
from sah.report.reading.collect import collect
from sah.results.schema import Result
from sah.terminal import plain
from sah.tracking import NoTracker, Record, Tracker, require_working


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "track",
        "Send the results below each folder to a tracker: those of experiments without one, and "
        "those that it did not accept. What it has already is not sent again, so the same command "
        "may be repeated. A result continues the run that an interrupted experiment left.",
        examples=[
            "track outputs tracker=mlflow",
            "track outputs tracker=wandb tracker.project=sparse",
        ],
        then="`sah run … tracker=NAME` sends live numbers and results of new experiments",
    )
    parser.add_argument(
        "-cd",
        "--config-dir",
        metavar="FOLDER",
        help="find trackers of your own in FOLDER/tracker, as for `sah run`",
    )
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="FOLDER|KEY=VALUE",
        help="the folders, tracker=NAME, and values of the tracker: tracker.KEY=VALUE",
    )
    return parser


def main(arguments: list[str]) -> None:
    """Send every result; exit with status 1 if one was not accepted."""
    parser = make_parser()
    options = parser.parse(arguments)
    given = options.arguments
    overrides = [text for text in given if re.match(r"(tracker(\.\w+)*|output_root)=", text)]
    folders = [Path(text) for text in given if text not in overrides]
    if not folders:
        parser.error("no folder; give the output root, for example outputs")
    if options.config_dir is not None:
        if not Path(options.config_dir).is_dir():
            parser.error(f"--config-dir {options.config_dir} is not a folder")
        quoted = str(Path(options.config_dir).absolute()).replace("'", "\\'")
        overrides.append(f"hydra.searchpath=['file://{quoted}']")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        tracker = _tracker(overrides)
        results = collect(*folders)
    except SahError as error:
        sys.exit(plain(f"sah track: {error}"))
    failed = _send(tracker, results)
    if failed:
        sys.exit(f"{failed} of {len(results)} results were not sent; run the same command again")


def _tracker(overrides: Sequence[str]) -> Tracker:
    tracker: Tracker = build(compose(overrides), "tracker")
    if isinstance(tracker, NoTracker):
        raise ConfigurationError("choose a tracker with tracker=NAME, for example tracker=mlflow")
    require_working(tracker)
    return tracker


def _send(tracker: Tracker, results: Sequence[Result]) -> int:
    """Send the results that the tracker does not have; return how many it did not accept."""
    failed = 0
    for result in results:
        try:
            record = Record.from_result(result)
            outcome = "already there"
            if not tracker.has(record):
                tracker.log(record)
                outcome = "sent"
        except Exception as error:  # noqa: BLE001 (third-party code; the others are sent)
            outcome = f"not sent, {type(error).__name__}: {error}"
            failed += 1
        sys.stdout.write(plain(f"{result.directory}: {outcome}") + "\n")
        sys.stdout.flush()
    return failed
