"""`sah match`: the budgets at which attentions hold or read the same."""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException

from sah.cli.arguments.parser import Parser
from sah.cli.report import add_output, write_table
from sah.errors import ConfigurationError, SahError, category
from sah.report.tables.table import Cell, Column, Table, label
from sah.terminal import plain

if TYPE_CHECKING:
    from sah.matching.budget_option import Metric
    from sah.matching.matching import Candidate, Target


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "match",
        "Find the budget of each attention that measures as asked, on a tuning split whose "
        "contexts are never measured. Takes the overrides of the experiments to be measured.",
        examples=[
            "match --target resident=0.25 attention=snapkv,kivi --save conf_matched",
            "match --target rows_read=0.1 attention=quest,loki benchmark.samples=10",
        ],
        then="`sah run -m attention=NAME@METRIC-VALUE --config-dir FOLDER` with the presets saved",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the experiments")
    parser.add_argument(
        "--target",
        required=True,
        metavar="METRIC=VALUE",
        help="resident, density or rows_read, e.g. resident=0.1",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        metavar="PERCENT",
        help="largest relative distance from the target (default: 2)",
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="[ATTENTION=]PATH",
        help="the option to search, e.g. vattention=maskers.oracle_top_k.fraction; the default is "
        "the one that the method declares; may be repeated",
    )
    parser.add_argument(
        "--contexts",
        type=int,
        default=2,
        help="contexts per task in the tuning split (default: 2)",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="write presets to FOLDER/sparse_attention, for --config-dir FOLDER",
    )
    parser.add_argument(
        "--config-dir", metavar="FOLDER", help="a folder with further options, as of run.py"
    )
    add_output(parser, ("table", "md", "csv"))
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; exit with status 1 if an attention cannot meet the target."""
    options = make_parser().parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("sah.matching").setLevel(logging.INFO)
    try:
        target = _target(options)
        candidates = _matched(options, target)
        write_table(_table(candidates, target), options)
        if options.save is not None:
            from sah.matching.matched_presets import save

            for path in save(candidates, target, options.save):
                sys.stderr.write(f"{plain(str(path))}\n")
    except Exception as error:
        kind = category(error)
        if kind == "unknown" and not isinstance(error, SahError):
            raise
        named = "" if kind == "configuration" else f"{kind}: "
        sys.exit(plain(f"sah match: {named}{error}"))
    missed = [one for one in candidates if not one.search.is_met]
    if missed:
        sys.exit(plain("\n".join(one.explain(target.metric) for one in missed)))


def _target(options: argparse.Namespace) -> "Target":
    from sah.matching.matching import Target

    if options.contexts < 1:
        raise ConfigurationError(f"--contexts must be at least 1, got {options.contexts}")
    if not 0 < options.tolerance < 100:
        raise ConfigurationError(
            f"--tolerance={options.tolerance:g} must be above 0 and below 100 percent; the default "
            "is 2"
        )
    metric, value = _metric_and_value(options.target)
    return Target(
        metric=metric,
        value=value,
        tolerance=options.tolerance / 100,
        contexts=options.contexts,
    )


def _metric_and_value(text: str) -> "tuple[Metric, float]":
    from sah.matching.budget_option import METRICS

    name, _, number = text.partition("=")
    metric = next((metric for metric in METRICS if metric == name), None)
    if metric is None:
        raise ConfigurationError(
            f"--target={text}: {name!r} cannot be matched; take {', '.join(METRICS)}, such as "
            "resident=0.1"
        )
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    # An index adds to what is held, so that resident may be above 1.
    if not (0 < value < math.inf and (metric == "resident" or value <= 1)):
        limit = "above 0" if metric == "resident" else "in (0, 1]"
        raise ConfigurationError(f"--target={text}: {metric} must be a number {limit}")
    return metric, value


def _matched(options: argparse.Namespace, target: "Target") -> "list[Candidate]":
    from sah.execution.progress import quiet_libraries
    from sah.matching.matching import match

    quiet_libraries()
    chosen: dict[str, list[str]] = {}
    others = []
    for text in options.overrides:
        key, values = _values(text)
        if key in ("attention", "sparse_attention", "seed"):
            chosen.setdefault(key.removeprefix("sparse_"), []).extend(values)
        else:
            others.append(text)
    if not chosen.get("attention"):
        raise ConfigurationError("give the attentions to match, such as attention=quest,snapkv")
    if options.config_dir is not None:
        others.append(f"hydra.searchpath=[{options.config_dir}]")
    try:
        seeds = [int(seed) for seed in chosen.get("seed", ["0"])]
    except ValueError:
        raise ConfigurationError(f"seed={','.join(chosen['seed'])} must be whole numbers") from None
    pairs = (text.rpartition("=") for text in options.budget)
    return match(
        chosen["attention"],
        others,
        target,
        seeds=seeds,
        budgets={name: path for name, _, path in pairs},
    )


def _values(text: str) -> tuple[str, list[str]]:
    """Return the key of an override and its values, several where it is a list of choices."""
    try:
        override = OverridesParser.create().parse_override(text)
        if not override.is_sweep_override():
            return override.key_or_group, [str(override.value())]
        if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
            raise ConfigurationError(f"{text}: list the values, such as attention=quest,snapkv")
        key, values = override.key_or_group, [str(one) for one in override.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigurationError(f"{text}: {str(error).splitlines()[0]}") from error
    if key not in ("attention", "sparse_attention", "seed"):
        raise ConfigurationError(
            f"{text}: only attention and seed take several values; match one {key} at a time"
        )
    return key, values


def _table(candidates: "Sequence[Candidate]", target: "Target") -> Table:
    rows = []
    for one in candidates:
        best = one.search.best
        measured = None if best is None else one.search.measured[best]
        is_met = one.search.is_met
        rows.append(
            [
                label(one.name),
                label(one.option.name),
                Cell(text="–" if best is None else f"{best:g}", value=best),
                Cell(
                    text="–" if measured is None else f"{measured:.4g}",
                    value=measured,
                    style="" if is_met else "alarm",
                ),
                Cell(text=str(one.search.evaluations), value=one.search.evaluations),
                Cell(text="yes" if is_met else "no", value=is_met),
            ]
        )
    return Table(
        columns=[
            Column(name="attention", header="attention", numeric=False),
            Column(name="option", header="option", numeric=False),
            Column(name="value", header="value"),
            Column(name=target.metric, header=target.metric),
            Column(name="evaluations", header="evaluations"),
            Column(name="matched", header="matched", numeric=False),
        ],
        rows=rows,
        caption=f"{target.metric} {target.value:g} within {100 * target.tolerance:g} %",
    )
