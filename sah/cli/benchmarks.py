"""`sah benchmarks`: list the benchmarks, their subsets, and where their data come from."""

from pathlib import Path

from sah.cli.arguments.parser import Parser
from sah.paths import config_folder


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "benchmarks",
        "List the benchmarks, their subsets, and where their data come from.",
        examples=["benchmarks", "benchmarks --config-dir own"],
        then="`sah help ruler` shows the values of one benchmark, `sah fetch benchmark=longbench` "
        "downloads its data",
    )
    parser.add_argument(
        "--config-dir",
        type=Path,
        metavar="FOLDER",
        help="also list the benchmarks of this folder, as for `sah run --config-dir FOLDER`",
    )
    return parser


def main(arguments: list[str]) -> None:
    """List the benchmarks of this package, then those of a folder of configurations."""
    parser = make_parser()
    options = parser.parse(arguments)
    if options.config_dir is not None and not options.config_dir.is_dir():
        parser.error(f"--config-dir {options.config_dir} is not a folder")
    from sah.benchmarks.listing import show_benchmarks

    for folder in (config_folder(), options.config_dir):
        if folder is not None:
            show_benchmarks(folder / "benchmark")
