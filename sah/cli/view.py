"""`sah view`: the HTML page on this machine, which follows a running sweep."""

import argparse
import hashlib
import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sah.cli.arguments.parser import Parser
from sah.cli.report import add_by, add_selection
from sah.errors import ConfigurationError, Interrupted, SahError
from sah.results.schema import Result
from sah.terminal import plain

if TYPE_CHECKING:
    from sah.report.html.live import BuiltPage, Snapshot
    from sah.report.html.server import PageServer

_MOST_PROBLEMS = 20


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "view",
        "Serve the HTML page of the results below a folder to browsers on this machine. The page "
        "follows a running sweep: it counts what is done, running and failed, and shows new "
        "results by itself. Ctrl-C ends it.",
        examples=[
            "view",
            "view outputs/llama --where benchmark=ruler --title 'SnapKV on RULER'",
            "view --port 8765    # ssh -N -L 8765:127.0.0.1:8765 HOST, from elsewhere",
        ],
        then="`sah report --format html` writes the page to a file",
    )
    add_selection(parser)
    add_by(parser)
    parser.add_argument("--title", help="the title of the page")
    parser.add_argument(
        "--port", type=_port, default=0, help="port on 127.0.0.1 (default: a free one)"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Serve the page until Ctrl-C; an error that the user can fix exits with one message."""
    options = make_parser().parse(arguments)
    try:
        with open_server(options, shlex.join(["sah", "view", *arguments])) as server:
            sys.stdout.write(plain(f"{server.address}    (Ctrl-C ends it)\n"))
            sys.stdout.flush()
            _serve(server)
    except SahError as error:
        sys.exit(plain(f"sah view: {error}"))


def _serve(server: "PageServer") -> None:
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
    except Interrupted as error:
        if error.signum != signal.SIGINT:
            raise


@contextmanager
def open_server(
    options: argparse.Namespace,
    command: str = "",
    *,
    pause_seconds: float = 1.0,
    pause_factor: float = 4.0,
) -> Iterator["PageServer"]:
    """Read the folders, and open the port of a server of their page.

    Args:
        options: from the parser.
        command: the command line, to show on the page.
        pause_seconds: as for `LivePage`.
        pause_factor: as for `LivePage`.

    Raises:
        SahError: if a folder does not exist, an option is wrong, or the port cannot be opened.
    """
    from sah.report.html.live import LivePage
    from sah.report.html.server import PageServer

    for folder in options.outputs:
        if not folder.is_dir():
            raise ConfigurationError(
                f"{str(folder)!r} is not a folder; start a sweep first, or give another one as the "
                "argument"
            )
    warnings = _Warnings()
    logger = logging.getLogger("sah")
    logger.addHandler(warnings)
    try:
        source = _Source(options, command, warnings)
        page = LivePage(
            source.read, source.build, pause_seconds=pause_seconds, pause_factor=pause_factor
        )
        with PageServer(page, options.port) as server:
            yield server
    finally:
        logger.removeHandler(warnings)


class _Source:
    """Reads the experiments that the arguments choose, and builds their page."""

    def __init__(self, options: argparse.Namespace, command: str, warnings: "_Warnings") -> None:
        self._options, self._command, self._warnings = options, command, warnings
        self._by = [] if options.by is None else options.by.split(",")

    def read(self) -> "Snapshot":
        from sah.cli.status import chosen_experiments
        from sah.report.html.live import Snapshot
        from sah.report.reading.collect import signature
        from sah.report.reading.select import resolve_key
        from sah.report.tables.state_table import reasons, summary

        self._warnings.messages.clear()
        # Before the results are read: one that is written meanwhile must make another page.
        changed = [self._command, signature(self._options.outputs)]
        experiments = chosen_experiments(self._options)
        results = [one.result for one in experiments if isinstance(one.result, Result)]
        if results:
            # Refused at once, rather than by the page.
            for key in self._by:
                resolve_key(key, results)
        counts = summary(experiments, time.time()) if experiments else ["no experiments yet"]
        return Snapshot(
            version=hashlib.blake2b("\n".join(changed).encode(), digest_size=8).hexdigest(),
            results=results,
            counts=counts,
            problems=[*reasons(experiments), *self._warnings.shown()],
        )

    def build(self, snapshot: "Snapshot") -> "BuiltPage":
        from sah.report.html.live import BuiltPage
        from sah.report.html.page import DEFAULT_TITLE, PAGE_FILES, render_page, render_waiting
        from sah.report.reading.collect import with_whole
        from sah.report.tables.overview import group_table

        self._warnings.messages.clear()
        title = self._options.title or DEFAULT_TITLE
        reason = "No experiment has a result yet."
        content = None
        if snapshot.results:
            try:
                results = with_whole(snapshot.results, PAGE_FILES)
                groups = group_table(results, self._by) if self._by else None
                content = render_page(
                    results,
                    groups,
                    title=title,
                    command=self._command,
                    version=snapshot.version,
                )
            except SahError as error:
                reason = str(error)
        if content is None:
            content = render_waiting(
                reason, title=title, command=self._command, version=snapshot.version
            )
        return BuiltPage(version=snapshot.version, content=content, problems=self._warnings.shown())


class _Warnings(logging.Handler):
    """Keeps the warnings of a reading for the page, and writes each one to the terminal once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, None] = {}
        self._written: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self.messages[message] = None
        if message not in self._written:
            self._written.add(message)
            sys.stderr.write(f"{message}\n")

    def shown(self) -> list[str]:
        messages = list(self.messages)
        more = len(messages) - _MOST_PROBLEMS
        return [*messages[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is 0 to 65535")
    return int(text)
