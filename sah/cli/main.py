"""The entry point: a subcommand, or an experiment."""

import importlib
import sys

SUBCOMMANDS = (
    *("benchmarks", "calibrate", "compare", "convert", "doctor", "fetch", "report", "rescore"),
    *("status",),
)
"""Each is the module of this name in sah.cli, with a `main(arguments)`."""


def main() -> None:
    """Run a subcommand, or an experiment with everything else."""
    name, arguments = "run", sys.argv[1:]
    if arguments and arguments[0] in SUBCOMMANDS:
        name, *arguments = arguments
    # Imported when called: `sah status` must not wait for what another subcommand needs.
    importlib.import_module(f"sah.cli.{name}").main(arguments)
