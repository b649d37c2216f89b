"""The entry point: a subcommand, or an experiment."""

import difflib
import importlib
import signal
import sys
from contextlib import nullcontext

from sah.cli.topics.screen import SUBCOMMANDS, overview, versions
from sah.errors import Interrupted
from sah.execution.signals import signals_interrupt
from sah.terminal import output_or_exit

_HYDRA_FLAGS = "\nflags of Hydra: sah run --help, or all of them: python run.py --hydra-help\n"


def main() -> None:
    """Run a subcommand, or an experiment with everything else.

    Without an argument, `sah` lists the commands and `python run.py` runs the defaults.
    """
    with output_or_exit():
        _main()


def _main() -> None:
    arguments = sys.argv[1:]
    is_script = sys.argv[0].endswith(".py")
    if not arguments and not is_script:
        sys.stdout.write(overview())
        return
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview() + (_HYDRA_FLAGS if is_script else ""))
        return
    if arguments == ["--version"]:
        sys.stdout.write(versions())
        return
    name = "run"
    if arguments and arguments[0] in SUBCOMMANDS:
        name, *arguments = arguments
        if name == "run":
            # Hydra reads it.
            del sys.argv[1]
    elif arguments and arguments[0].isidentifier():
        sys.exit(_unknown(arguments[0]))
    try:
        # A run handles signals once it is at work: its message says how much is answered.
        with nullcontext() if name == "run" else signals_interrupt():
            # Imported when called: `sah status` must not wait for what another subcommand needs.
            importlib.import_module(f"sah.cli.{name}").main(arguments)
    except (Interrupted, KeyboardInterrupt) as error:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + (error.signum if isinstance(error, Interrupted) else signal.SIGINT))


def _unknown(command: str) -> str:
    similar = difflib.get_close_matches(command, SUBCOMMANDS, n=2)
    meant = f"did you mean {' or '.join(similar)}? " if similar else ""
    return (
        f"sah: {command!r} is not a command; {meant}`sah --help` lists the commands, and overrides "
        "of an experiment are KEY=VALUE"
    )
