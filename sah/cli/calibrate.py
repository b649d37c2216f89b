"""`sah calibrate`: fit a method to a model."""

import logging
import sys

from sah.errors import SahError

USAGE = "Fit a method to a model: sah calibrate METHOD model=NAME [KEY=VALUE ...]"


def main(arguments: list[str]) -> None:
    """Run the subcommand: fit the method and write the file that it reads."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(USAGE)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sah").setLevel(logging.INFO)
    from sah.calibration.fitted_files import calibrate
    from sah.execution.progress import quiet_libraries

    quiet_libraries()
    method, *options = arguments
    try:
        calibrate(method, options)
    except SahError as error:
        sys.exit(str(error))
