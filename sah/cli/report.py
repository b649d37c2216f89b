"""`sah report`: the results below a folder, as a table or as one HTML file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sah.errors import SahError
from sah.report.reading.collect import Run, collect
from sah.report.reading.select import parse_conditions, select
from sah.report.tables.table import Table, render, show

DESCRIPTION = "Show the results below a folder: scores with intervals, densities, errors, costs."


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; what a user can put right ends it with one message."""
    parser = argparse.ArgumentParser(prog="sah report", description=DESCRIPTION)
    add_selection(parser)
    parser.add_argument(
        "--by", metavar="KEY[,KEY]", help="one row for all runs with equal values, e.g. attention"
    )
    add_output(parser, ("table", "md", "csv", "latex", "html"))
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="also draw the figures there, as SVG and PNG",
    )
    options = parser.parse_args(arguments)
    try:
        runs = chosen_runs(options)
        if options.figures is not None:
            from sah.report.figures.draw import draw_all

            for path in draw_all(runs, options.figures):
                sys.stderr.write(f"{path}\n")
        if options.format == "html":
            from sah.report.html.page import write_page

            target = options.output or Path("report.html")
            write_page(runs, target)
            sys.stdout.write(f"{target}\n")
            return
        from sah.report.tables.overview import group_table, run_table

        if options.by:
            table = group_table(runs, options.by.split(","), wide=options.format == "csv")
        else:
            table = run_table(runs, wide=options.format == "csv")
        write_table(table, options.format, options.output)
    except SahError as error:
        sys.exit(f"sah report: {error}")


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose runs."""
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE[,...]",
        help="only these runs, e.g. model=llama,benchmark=ruler or attention=dense,sparse; any "
        "configuration key, or the end of one; * and ? match",
    )


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """Arguments that say where the table goes, and how it looks."""
    parser.add_argument("--format", choices=formats, default="table")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of the terminal")


def chosen_runs(options: argparse.Namespace) -> list[Run]:
    """The runs that the arguments choose.

    Raises:
        ConfigurationError: if there are none.
    """
    from sah.errors import ConfigurationError

    runs = select(collect(options.outputs), parse_conditions(options.where))
    if not runs:
        raise ConfigurationError(f"no run is --where {' --where '.join(options.where)}")
    return runs


def write_table(table: Table, text_format: str, target: Path | None) -> None:
    """Write a table to a file or to the terminal."""
    if text_format == "table":
        if target is None:
            show(table, Console())
            return
        with open(target, "w", encoding="utf-8") as file:
            show(table, Console(file=file, width=80))
        return
    content = render(table, text_format)  # type: ignore[arg-type]
    if target is None:
        sys.stdout.write(content)
    else:
        target.write_text(content, encoding="utf-8")
