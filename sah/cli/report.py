"""`sah report`: the results below a folder as a table, figures or one HTML file."""

import argparse
import io
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sah.cli.arguments.parser import Parser
from sah.errors import ConfigurationError, SahError
from sah.report.reading.collect import collect, with_whole
from sah.report.reading.select import parse_conditions, select
from sah.report.saving import save
from sah.report.tables.layout import show
from sah.report.tables.markup import render
from sah.report.tables.table import Table, only_columns
from sah.results.schema import Result
from sah.results.stored_lines import EXAMPLES, MICRO_METRICS, PREDICTIONS
from sah.terminal import plain

if TYPE_CHECKING:
    from sah.report.figures.draw import CostAxis


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "report",
        "Show the results below a folder: scores with intervals, densities, errors, costs.",
        examples=[
            "report --where model=llama,benchmark=ruler --by attention",
            "report outputs/llama --format csv -o results.csv",
            "report --format html --figures figures",
        ],
        then="`sah compare --baseline attention=dense` says which differences are real",
    )
    add_selection(parser)
    add_by(parser)
    add_output(parser, ("table", "md", "csv", "latex", "html"))
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="also write the figures to FOLDER, as SVG, PDF and PNG",
    )
    parser.add_argument(
        "--axis",
        choices=(
            *("density", "rows_read", "resident", "prefill_density"),
            *("keys_read", "answer_tokens"),
        ),
        metavar="AXIS",
        help="what figures draw the score against: density, the share of keys that a query head "
        "selects; rows_read, the share of key-value rows that any head of a group selects; "
        "resident, the bytes held of a context as a share of its dense cache; prefill_density, "
        "the share of the visible keys that the context's own queries read; keys_read, the keys "
        "that an answer reads in total; or answer_tokens, its length (default: density, and each "
        "other share that differs)",
    )
    parser.add_argument("--title", help="the title of the HTML page")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; an error that the user can fix exits with one message."""
    options = make_parser().parse(arguments)
    try:
        from sah.report.tables.overview import group_table, result_table

        results, wide = chosen_results(options, _files(options)), options.format == "csv"
        _check_axis(options, results)
        if options.title is not None and options.format != "html":
            raise ConfigurationError(
                f"--title {options.title!r} is about the HTML page; add --format html"
            )
        if options.columns is not None and options.format == "html":
            raise ConfigurationError("--columns is about tables; leave it out with --format html")
        axis: CostAxis | None = options.axis
        groups = None
        if options.by is not None:
            # Before anything is written, because it refuses a key that no result has.
            groups = group_table(results, options.by.split(","), wide=wide)
        if options.figures is not None:
            from sah.report.figures.export import write_figures

            for path in write_figures(results, options.figures, axis):
                sys.stderr.write(f"{plain(str(path))}\n")
        if options.format == "html":
            from sah.report.html.page import DEFAULT_TITLE, write_page

            target = options.output or Path("report.html")
            command = shlex.join(["sah", "report", *arguments])
            title = options.title or DEFAULT_TITLE
            write_page(results, target, groups, axis, title=title, command=command)
            sys.stdout.write(f"{plain(str(target))}\n")
            return
        table = result_table(results, wide=wide) if groups is None else groups
        write_table(table, options)
    except SahError as error:
        sys.exit(plain(f"sah report: {error}"))


def _check_axis(options: argparse.Namespace, results: Sequence[Result]) -> None:
    """Refuse an axis without figures, or without a value on it.

    Raises:
        ConfigurationError: saying what to change.
    """
    if options.axis is None:
        return
    if options.figures is None and options.format != "html":
        raise ConfigurationError(
            f"--axis {options.axis} is about figures; add --figures FOLDER or --format html"
        )
    # Without a query under the attention there is no share.
    is_share = options.axis in ("density", "rows_read", "resident", "prefill_density")
    asked = [one for one in results if one.density is not None or not is_share]
    missing = [one for one in asked if getattr(one, options.axis) is None]
    if missing:
        raise ConfigurationError(
            f"--axis {options.axis}: {len(missing)} of {len(results)} results do not have it (such "
            f"as {missing[0].directory}), because an earlier version computed them; leave them out "
            "with --where, or compute them again with resume=false"
        )


def _files(options: argparse.Namespace) -> set[str]:
    """Return the files that the report reads besides results.json."""
    files = set()
    if options.by is not None:
        files |= {PREDICTIONS}
    if options.figures is not None:
        files |= {PREDICTIONS, MICRO_METRICS, EXAMPLES}
    if options.format == "html":
        from sah.report.html.page import PAGE_FILES

        files |= PAGE_FILES
    return files


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the folders to read."""
    parser.add_argument(
        "outputs",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        default=[Path("outputs")],
        help="output roots, folders in them, or directories of experiments (default: outputs)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose results."""
    add_outputs(parser)
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE[,...]",
        help="only these results, e.g. model=llama,benchmark=ruler or attention=dense,sparse; any "
        "configuration key, or the end of one; * and ? are wildcards",
    )


def add_by(parser: argparse.ArgumentParser) -> None:
    """Add the argument that groups results."""
    parser.add_argument(
        "--by",
        metavar="KEY[,KEY]",
        help="one row per group of results with equal values, e.g. attention",
    )


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """Add the arguments that choose the format and target of the table."""
    parser.add_argument(
        "--format", choices=formats, default="table", help="format (default: table)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to FILE, not to the terminal"
    )
    parser.add_argument(
        "--columns",
        type=lambda names: names.split(","),
        metavar="NAME[,NAME]",
        help="only these columns, in this order; a wrong name lists them all",
    )


def chosen_results(options: argparse.Namespace, files: Collection[str]) -> list[Result]:
    """Read the results that the arguments choose, and check the files that will be read of them.

    Raises:
        ConfigurationError: if there are none.
    """
    results = select(collect(*options.outputs), parse_conditions(options.where))
    if not results:
        raise ConfigurationError(f"no result matches --where {' --where '.join(options.where)}")
    return with_whole(results, files, options.outputs)


def write_table(table: Table, options: argparse.Namespace) -> None:
    """Write a table as `add_output` lets the user choose.

    Raises:
        ConfigurationError: if it lacks a column that was chosen.
        SahError: if the file cannot be written.
    """
    target = options.output
    if options.columns is not None:
        table = only_columns(table, options.columns)
    if target is None and isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that is not UTF-8 gets an escape for a character that it lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.format == "table":
        if target is None:
            show(table, Console())
            return
        text = io.StringIO()
        show(table, Console(file=text, width=80))
        save(target, text.getvalue().encode())
        return
    content = render(table, options.format)
    if target is None:
        sys.stdout.write(content)
    else:
        save(target, content.encode())
