"""`sah calibrate`: fit a method to a model."""

import logging
import sys
from typing import Literal

from sah.errors import SahError

USAGE = "Fit a method to a model: sah calibrate METHOD model=NAME [KEY=VALUE ...]"


def main(arguments: list[str]) -> None:
    """Run the subcommand: fit the method and write the file that it reads."""
    write_file("calibrate", USAGE, arguments)


def write_file(command: Literal["calibrate", "convert"], usage: str, arguments: list[str]) -> None:
    """Run a function of sah.calibration.fitted_files; an error ends it with one message."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(usage)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sah").setLevel(logging.INFO)
    from sah.calibration import fitted_files
    from sah.execution.progress import quiet_libraries

    quiet_libraries()
    method, *options = arguments
    function = fitted_files.calibrate if command == "calibrate" else fitted_files.convert
    try:
        function(method, options)
    except SahError as error:
        sys.exit(str(error))
