"""`sah convert`: convert the published weights of a method."""

from sah.cli.arguments.parser import Parser
from sah.cli.calibrate import write_file


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "convert",
        "Convert the published weights of a method into the file that the method reads.",
        examples=["convert hash_attention published.pt model=llama"],
        then="`sah run model=NAME attention=METHOD` finds the file by the name of the model",
    )
    parser.add_argument("method", metavar="METHOD", help="the method that the weights are of")
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="FILE|KEY=VALUE",
        help="the published file, model=NAME, and where to write: output=FILE",
    )
    return parser


def main(arguments: list[str]) -> None:
    """Run the subcommand: convert the weights and write the file that the method reads."""
    options = make_parser().parse(arguments)
    write_file("convert", options.method, options.overrides)
