"""`sah calibrate`: fit a method to a model."""

import logging
import sys
from collections.abc import Sequence
from typing import Literal

from sah.cli.arguments.parser import Parser
from sah.errors import SahError
from sah.terminal import next_command


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "calibrate",
        "Fit a method to a model and write the file that the method reads.",
        examples=[
            "calibrate double_sparsity model=llama",
            "calibrate hash_attention model=llama tokens=65536",
            "calibrate duo_attention model=llama",
        ],
        then="`sah run model=NAME attention=METHOD` finds the file by the name of the model",
    )
    parser.add_argument("method", metavar="METHOD", help="the method to fit")
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="KEY=VALUE",
        help="model=NAME, other overrides of the model, tokens=, passage_tokens=, text=FILE and "
        "output=FILE; docs/calibration.md says what they mean",
    )
    return parser


def main(arguments: list[str]) -> None:
    """Run the subcommand: fit the method and write the file that it reads."""
    options = make_parser().parse(arguments)
    write_file("calibrate", options.method, options.overrides)


def write_file(
    command: Literal["calibrate", "convert"], method: str, arguments: Sequence[str]
) -> None:
    """Run a function of sah.calibration.fitted_files; an error ends it with one message."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sah").setLevel(logging.INFO)
    from sah.calibration import fitted_files
    from sah.execution.progress import quiet_libraries

    quiet_libraries()
    function = fitted_files.calibrate if command == "calibrate" else fitted_files.convert
    try:
        function(method, arguments)
    except SahError as error:
        sys.exit(str(error))
    sys.stdout.write(next_command("sah", "run", *fitted_files.overrides_for(method, arguments)))
