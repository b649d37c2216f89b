"""The entry point: a subcommand, or an experiment."""

import importlib
import signal
import sys
from contextlib import nullcontext

from sah.errors import Interrupted
from sah.execution.signals import signals_interrupt

SUBCOMMANDS = (
    *("benchmarks", "calibrate", "compare", "convert", "doctor", "fetch", "match", "report"),
    *("rescore", "status", "track"),
)
"""Each is the module of this name in sah.cli, with a `main(arguments)`."""


def main() -> None:
    """Run a subcommand, or an experiment with everything else."""
    name, arguments = "run", sys.argv[1:]
    if arguments and arguments[0] in SUBCOMMANDS:
        name, *arguments = arguments
    try:
        # A run handles signals once it is at work: its message says how much is answered.
        with nullcontext() if name == "run" else signals_interrupt():
            # Imported when called: `sah status` must not wait for what another subcommand needs.
            importlib.import_module(f"sah.cli.{name}").main(arguments)
    except (Interrupted, KeyboardInterrupt) as error:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + (error.signum if isinstance(error, Interrupted) else signal.SIGINT))
