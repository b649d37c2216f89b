"""`sah work`: compute what is left of a sweep, beside any number of other workers."""

import logging
import sys
from pathlib import Path

from sah.cli.arguments.parser import Parser
from sah.errors import Interrupted, SahError
from sah.terminal import PlainFormatter, plain

logger = logging.getLogger(__name__)


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "work",
        "Compute what is left of a sweep, bundle after bundle, until all of it is complete or "
        "has failed. Any number of workers may share a sweep, on any "
        "hosts that see its folder, and take over what a dead one has begun. Uses the GPUs that "
        "CUDA_VISIBLE_DEVICES shows, and runs whatever the sweep's plan says: give it a folder of "
        "your own.",
        examples=[
            "run -m hydra/launcher=workers attention=dense,quest seed=1,2",
            "work outputs/.sweeps/20261126-140448",
        ],
        then="`sah status` shows all workers, `sah report` the results",
    )
    parser.add_argument(
        "folder", type=Path, metavar="SWEEP", help="the folder of a sweep, in OUTPUT_ROOT/.sweeps"
    )
    parser.add_argument(
        "--grace-seconds",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="time to end an answer when the worker is stopped by SIGINT, SIGTERM or SIGHUP (20)",
    )
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="end when the rest is being computed by other workers, instead of waiting in case one "
        "of them dies",
    )
    return parser


def main(arguments: list[str]) -> None:
    """Work; exit with status 1 if an experiment that was computed here has failed."""
    parser = make_parser()
    options = parser.parse(arguments)
    if options.grace_seconds < 0:
        parser.error("--grace-seconds must be at least 0")
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sah.execution.building import explain
    from sah.launching.work.claiming import SweepWorker

    try:
        worker = SweepWorker(
            options.folder, grace_seconds=options.grace_seconds, waits=not options.no_wait
        )
        counts = worker.work()
    except (SahError, HydraException, OmegaConfBaseException) as error:
        sys.exit(plain(f"sah work: {explain(error)}"))
    except Interrupted as interruption:
        logger.warning("interrupted; the same command goes on")
        sys.exit(128 + interruption.signum)
    failed = counts.pop("failed here")
    shown = {"running": "being computed by other workers"}
    logger.info("%s", ", ".join(f"{n} {shown.get(state, state)}" for state, n in counts.items()))
    if failed:
        sys.exit(f"sah work: {failed} failed here; the sweep's own command tries them again")
