"""`sah benchmarks`: the benchmarks, their subsets, and where their data come from."""

import sys

from sah.benchmarks.listing import show_benchmarks
from sah.paths import config_folder


def main(arguments: list[str]) -> None:
    """List the benchmarks."""
    if arguments:
        sys.exit(f"sah benchmarks takes no arguments, got {arguments}")
    show_benchmarks(config_folder() / "benchmark")
