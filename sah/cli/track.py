"""`sah track`: send finished results to a tracker."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sah.errors import ConfigurationError, SahError
from sah.execution.building import build, compose
from sah.report.reading.collect import collect
from sah.results.schema import Result
from sah.terminal import plain
from sah.tracking import NoTracker, Record, Tracker, require_working

USAGE = """usage: sah track FOLDER [FOLDER ...] tracker=NAME [tracker.KEY=VALUE ...]

Send the results below each folder to a tracker: those of runs without one, and those that it did
not accept. What it has already is not sent again, so the same command may be repeated."""


def main(arguments: list[str]) -> None:
    """Send every result; exit with status 1 if one was not accepted."""
    overrides = [text for text in arguments if re.match(r"(tracker(\.\w+)*|output_root)=", text)]
    folders = [Path(text) for text in arguments if text not in overrides]
    if not folders or any(text.startswith("-") for text in arguments):
        sys.exit(USAGE)
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
