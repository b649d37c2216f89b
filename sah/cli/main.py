"""The entry point: a subcommand, or an experiment."""

import importlib
import signal
import sys

SUBCOMMANDS = (
    *("benchmarks", "calibrate", "compare", "convert", "doctor", "fetch", "report", "rescore"),
    *("status", "track"),
)
"""Each is the module of this name in sah.cli, with a `main(arguments)`."""


def main() -> None:
    """Run a subcommand, or an experiment with everything else."""
    name, arguments = "run", sys.argv[1:]
    if arguments and arguments[0] in SUBCOMMANDS:
        name, *arguments = arguments
    try:
        # Imported when called: `sah status` must not wait for what another subcommand needs.
        importlib.import_module(f"sah.cli.{name}").main(arguments)
    except KeyboardInterrupt:
        # An experiment at work has its own message, with the number of its answers.
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
