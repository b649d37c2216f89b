"""`sah compare`: every run against its baseline, example by example."""

import argparse
import sys
from collections.abc import Sequence

from sah.cli.report import add_output, add_selection, chosen_runs, write_table
from sah.errors import ConfigurationError, SahError

DESCRIPTION = (
    "Compare runs with a baseline on identical inputs: differences with intervals, tests "
    "corrected for their number, flips, and whether a method is within a margin of the baseline."
)


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; what a user can put right ends it with one message."""
    parser = argparse.ArgumentParser(prog="sah compare", description=DESCRIPTION)
    add_selection(parser)
    parser.add_argument(
        "--baseline",
        default="attention=dense",
        metavar="KEY=VALUE[,...]",
        help="which runs the others are compared with (default: %(default)s)",
    )
    parser.add_argument(
        "--margin", type=float, default=1.0, help="points that count as no difference (default: 1)"
    )
    parser.add_argument("--per-task", action="store_true", help="one row a task")
    parser.add_argument(
        "--pool",
        default="",
        metavar="KEY[,KEY]",
        help="compare runs that differ only there together, e.g. seed",
    )
    parser.add_argument("--resamples", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    add_output(parser, ("table", "md", "csv", "latex"))
    options = parser.parse_args(arguments)
    try:
        _compare(options)
    except SahError as error:
        sys.exit(f"sah compare: {error}")


def _compare(options: argparse.Namespace) -> None:
    from sah.report.reading.select import parse_conditions, resolve_key
    from sah.report.statistics.comparison import Settings, compare
    from sah.report.statistics.pairing import Match, match
    from sah.report.tables.comparison_table import compare_table

    if options.margin <= 0 or options.resamples < 100:
        raise ConfigurationError(
            f"--margin must be above 0 and --resamples at least 100, got {options.margin} and "
            f"{options.resamples}"
        )
    runs = chosen_runs(options)
    pool = [name for name in options.pool.split(",") if name]
    matches, unmatched = match(runs, parse_conditions([options.baseline]), pool)
    settings = Settings(margin=options.margin / 100, resamples=options.resamples, seed=options.seed)
    comparisons, refused = compare(matches, settings, per_task=options.per_task)
    left_out = [(Match(arms=[run], baselines=[]), reason) for run, reason in unmatched] + refused
    if not comparisons:
        reasons = sorted({reason for _, reason in left_out}) or ["every run is a baseline"]
        raise ConfigurationError(f"nothing to compare: {'; '.join(reasons[:3])}")
    table = compare_table(
        comparisons,
        left_out,
        settings,
        baseline=options.baseline,
        pooled=[resolve_key(name, runs) for name in pool],
        wide=options.format == "csv",
    )
    write_table(table, options.format, options.output)
