"""`sah convert`: convert the published weights of a method."""

import logging
import sys

from sah.errors import SahError

USAGE = "Convert published weights: sah convert METHOD FILE model=NAME [output=FILE]"


def main(arguments: list[str]) -> None:
    """Run the subcommand: convert the weights and write the file that the method reads."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(USAGE)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sah").setLevel(logging.INFO)
    from sah.calibration.fitted_files import convert
    from sah.execution.progress import quiet_libraries

    quiet_libraries()
    method, *options = arguments
    try:
        convert(method, options)
    except SahError as error:
        sys.exit(str(error))
