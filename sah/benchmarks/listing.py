"""`sah benchmarks`: what there is to measure on."""

from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table


def show_benchmarks(folder: Path) -> None:
    """Show each benchmark of a config folder with its subsets."""
    table = Table(box=None, pad_edge=False)
    table.add_column("benchmark=", style="bold", no_wrap=True)
    table.add_column("benchmark.subset=")
    for path in sorted(folder.glob("*.yaml")):
        benchmark: Any = get_class(OmegaConf.select(OmegaConf.load(path), "_target_"))
        table.add_row(path.stem, ", ".join(benchmark.subsets()))
    Console().print(table)
