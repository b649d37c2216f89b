"""`sah benchmarks`: list the benchmarks, their subsets, and where their data come from."""

import argparse
from pathlib import Path

from sah.benchmarks.listing import show_benchmarks
from sah.paths import config_folder


def main(arguments: list[str]) -> None:
    """List the benchmarks of this package, then those of a folder of configurations."""
    parser = argparse.ArgumentParser(
        prog="sah benchmarks",
        description="List the benchmarks, their subsets, and where their data come from.",
    )
    parser.add_argument(
        "--config-dir",
        type=Path,
        metavar="FOLDER",
        help="also list the benchmarks of this folder, as for `python run.py --config-dir FOLDER`",
    )
    options = parser.parse_args(arguments)
    if options.config_dir is not None and not options.config_dir.is_dir():
        parser.error(f"--config-dir {options.config_dir} is not a folder")
    for folder in (config_folder(), options.config_dir):
        if folder is not None:
            show_benchmarks(folder / "benchmark")
