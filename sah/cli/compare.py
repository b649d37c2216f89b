"""`sah compare`: every result against its baseline, example by example."""

import argparse
import sys
from collections.abc import Sequence

from sah.cli.arguments.parser import Parser
from sah.cli.report import add_output, add_selection, chosen_results, write_table
from sah.errors import ConfigurationError, SahError
from sah.results.stored_lines import PREDICTIONS
from sah.terminal import plain


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "compare",
        "Compare results with a baseline on identical inputs: differences with intervals, "
        "corrected tests, flips, and whether a method is within a margin of the baseline.",
        examples=[
            "compare --baseline attention=dense --pool seed",
            "compare --where benchmark=ruler --margin 2 --per-task",
            "compare --format latex --columns method,diff,p,verdict -o table.tex",
        ],
        then="`sah report --format html` shows the answers behind a difference",
    )
    add_selection(parser)
    parser.add_argument(
        "--baseline",
        default="attention=dense",
        metavar="KEY=VALUE[,...]",
        help="the results to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="largest difference, in points, that counts as none (default: 1)",
    )
    parser.add_argument("--per-task", action="store_true", help="one row per task")
    parser.add_argument(
        "--pool",
        default="",
        metavar="KEY[,KEY]",
        help="pool results that differ only in these keys, e.g. seed",
    )
    add_output(parser, ("table", "md", "csv", "latex"))
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; an error that the user can fix exits with one message."""
    options = make_parser().parse(arguments)
    try:
        _compare(options)
    except SahError as error:
        sys.exit(plain(f"sah compare: {error}"))


def _compare(options: argparse.Namespace) -> None:
    from sah.report.reading.select import parse_conditions, resolve_key
    from sah.report.statistics.comparison import Settings, compare
    from sah.report.statistics.pairing import Match, match
    from sah.report.tables.comparison_table import compare_table

    if not 0 < options.margin < 100:
        raise ConfigurationError(
            f"--margin={options.margin:g} must be above 0 and below 100 points; the default is 1"
        )
    results = chosen_results(options, {PREDICTIONS})
    pool = [name for name in options.pool.split(",") if name]
    matches, unmatched = match(results, parse_conditions([options.baseline]), pool)
    settings = Settings(margin=options.margin / 100)
    comparisons, refused = compare(matches, settings, per_task=options.per_task)
    left_out = [(Match(results=[one], baselines=[]), reason) for one, reason in unmatched] + refused
    if not comparisons:
        reasons = sorted({reason for _, reason in left_out}) or ["every result is a baseline"]
        raise ConfigurationError(f"nothing to compare: {'; '.join(reasons[:3])}")
    table = compare_table(
        comparisons,
        left_out,
        settings,
        baseline=options.baseline,
        pooled=[resolve_key(name, results) for name in pool],
        wide=options.format == "csv",
    )
    write_table(table, options)
