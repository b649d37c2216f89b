"""`sah plan`: the cells and jobs of a sweep and what they will cost, without starting it."""

import logging
import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from sah.cli.arguments.parser import Parser
from sah.cli.run import refuse
from sah.errors import SahError
from sah.results.show import command_line
from sah.terminal import plain


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "plan",
        "Show what a sweep will do before it is started: its experiments and jobs, tokens to "
        "prefill and decode, memory, and hours. Composes and checks as `sah run -m` does, but "
        "loads no model and writes nothing. Token numbers are upper bounds; what only data or "
        "tokenizer tell is unknown.",
        examples=[
            "plan -m attention=dense,quest seed=1,2 benchmark.samples=100",
            "plan -m model=llama benchmark=longbench hydra/launcher=slurm --count",
            "plan model=llama --device h100",
            "plan model=llama --prefill-rate 9000 --decode-rate 30",
        ],
        then="`sah run -m …` with the same overrides",
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="as for `sah run -m`")
    add("-m", "--multirun", action="store_true", help="as for `sah run`; changes nothing here")
    add("-cd", "--config-dir", metavar="FOLDER", help="find your own options in FOLDER, too")
    add("-cn", "--config-name", metavar="NAME", help="start from the yaml NAME, such as a study")
    add(
        "--count",
        action="store_true",
        help="make the prompts with the tokenizer and count them; takes as long as making them",
    )
    for name in ("prefill", "decode"):
        add(
            f"--{name}-rate",
            type=float,
            metavar="RATE",
            help=f"tokens per second of {name}; the default is measured by finished experiments "
            "of the model on this machine",
        )
    add(
        "--device",
        metavar="NAME",
        help="the least time that a GPU needs, by its vendor's data sheet, instead of rates: "
        "a100, h100, h200 or l40s",
    )
    add("--json", action="store_true", help="print every job as JSON")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the subcommand; exit with status 1 if an experiment is refused."""
    parser = make_parser()
    options = parser.parse(arguments)
    for name in ("prefill_rate", "decode_rate"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be above 0 tokens per second")
    if (options.prefill_rate is None) != (options.decode_rate is None):
        parser.error("give both --prefill-rate and --decode-rate, or neither")
    if options.device is not None and options.prefill_rate is not None:
        parser.error("give rates or --device, not both")
    flags = [("--config-dir", options.config_dir), ("--config-name", options.config_name)]
    given = [text for flag, value in flags if value is not None for text in (flag, value)]
    refuse(["-m", *given, *options.overrides])
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from sah.cli.planning.plan_view import plan_json, show_plan
    from sah.cli.planning.planned_jobs import forecast_jobs
    from sah.execution.building import explain
    from sah.execution.progress import quiet_libraries
    from sah.launching.forecast.bounds import DEVICES
    from sah.launching.forecast.composing import plan_command

    if options.device is not None and options.device not in DEVICES:
        parser.error(
            f"--device {options.device} is not one of {', '.join(DEVICES)}; for another, give "
            "--prefill-rate and --decode-rate"
        )
    device = None if options.device is None else DEVICES[options.device]
    rates = None
    if options.prefill_rate is not None:
        rates = (options.prefill_rate, options.decode_rate)
    quiet_libraries()
    try:
        sweep = plan_command(
            options.overrides, config_name=options.config_name, config_dir=options.config_dir
        )
        jobs = forecast_jobs(sweep, rates=rates, device=device, count=options.count)
    except (SahError, HydraException, OmegaConfBaseException) as error:
        sys.exit(plain(f"sah plan: {explain(error)}"))
    if options.json:
        sys.stdout.write(plan_json(sweep, jobs) + "\n")
    else:
        command = command_line(["-m", *given, *options.overrides])
        show_plan(sweep, jobs, command, Console(highlight=False))
    if any(plan.problems for plan in sweep.plans):
        sys.exit(1)
