"""`sah fetch`: download the model and the data set for nodes without a network."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sah.cli.arguments.parser import Parser, refuse_other_words
from sah.errors import SahError, category
from sah.terminal import next_command, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sah.execution.experiment import ModelSource
    from sah.types import Benchmark

logger = logging.getLogger(__name__)


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "fetch",
        "Download the model and the data set of an experiment, for nodes without a network. Only "
        "one of them if only one is named.",
        examples=["fetch model=llama benchmark=longbench", "fetch benchmark=math500"],
        then="`sah doctor` with the same overrides checks that everything is on this machine",
    )
    parser.add_argument(
        "overrides", nargs="+", metavar="KEY=VALUE", help="benchmark=NAME, model=NAME, and others"
    )
    return parser


def main(arguments: list[str]) -> None:
    """Download the model and the data set of an experiment."""
    parser = make_parser()
    arguments = parser.parse(arguments).overrides
    refuse_other_words(parser, arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from sah.execution.building import compose, explain

    try:
        fetch(compose(arguments), arguments)
    except Exception as error:
        kind = category(error)
        if kind == "unknown" and not isinstance(error, SahError):
            raise
        reason = explain(error) if kind == "configuration" else f"{kind}: {error}"
        if kind == "network":
            reason += "; run this where the Hub can be reached, with HF_HUB_OFFLINE unset"
        raise SystemExit(plain(f"sah fetch: {reason}")) from error
    remark = "where the experiment will run, with the same HF_HOME"
    sys.stdout.write(next_command("sah", "doctor", *arguments, remark=remark))


def fetch(config: "DictConfig", arguments: Sequence[str]) -> None:
    """Download what the experiment reads; only one of model and benchmark if only one is given."""
    from sah.execution.experiment import Experiment

    experiment = Experiment.from_config(config)
    chosen = {argument.partition("=")[0].partition(".")[0] for argument in arguments}
    parts: dict[str, ModelSource | Benchmark] = {
        "model": experiment.model,
        "benchmark": experiment.benchmark,
    }
    for name, part in parts.items():
        if name not in chosen and chosen & parts.keys():
            continue
        started = time.monotonic()
        fetched = part.fetch()
        logger.info("%s: %s, %.1f s", name, fetched, time.monotonic() - started)
