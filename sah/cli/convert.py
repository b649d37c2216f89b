"""`sah convert`: convert the published weights of a method."""

from sah.cli.calibrate import write_file

USAGE = "Convert published weights: sah convert METHOD FILE model=NAME [output=FILE]"


def main(arguments: list[str]) -> None:
    """Run the subcommand: convert the weights and write the file that the method reads."""
    write_file("convert", USAGE, arguments)
