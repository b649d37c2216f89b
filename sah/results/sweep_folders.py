"""What a launch of a sweep leaves beside its experiments: a folder below the output root."""

import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sah.results.files import write_json

SWEEPS = ".sweeps"
_CELLS = "cells.json"


def new_sweep_folder(output_root: Path) -> Path:
    """A fresh folder for what belongs to one launch; sorts by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent = output_root / SWEEPS
    for number in range(1000):
        folder = parent / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise RuntimeError(f"{parent} holds a thousand launches of this second")


def write_planned(folder: Path, directories: Iterable[Path], output_root: Path) -> None:
    """Write what a launch is going to run, so that others see what is still waiting.

    A cell may have an output root of its own: paths may begin with `..`.
    """
    write_json(folder / _CELLS, [os.path.relpath(path, output_root) for path in directories])


def planned_directories(output_root: Path) -> Iterator[Path]:
    """Where the experiments of all launches are to be computed."""
    for path in output_root.glob(f"{SWEEPS}/*/{_CELLS}"):
        for directory in json.loads(path.read_text()):
            yield output_root / directory
