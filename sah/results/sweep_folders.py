"""The folder of a sweep below the output root: its logs, its summary and its planned cells."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import orjson

from sah.results.files import write_json

SWEEPS = ".sweeps"
_CELLS = "cells.json"


def new_sweep_folder(output_root: Path) -> Path:
    """Create the folder of a sweep; folder names sort by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent = output_root / SWEEPS
    for number in range(1000):
        folder = parent / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise RuntimeError(f"{parent} has a thousand folders of the second {stamp}")


def remove_sweep_folder(folder: Path) -> None:
    """Remove the folder of a refused sweep, and the one of all sweeps if nothing else is in it."""
    # A job that SLURM is about to cancel may still write to its log.
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def write_planned(folder: Path, directories: Iterable[Path], output_root: Path) -> None:
    """Write the directories of the planned cells, so that `sah status` can show those waiting.

    Paths are relative to the output root; those of cells with another root begin with `..`.
    """
    write_json(folder / _CELLS, [os.path.relpath(path, output_root) for path in directories])


def planned_directories(output_root: Path) -> Iterator[Path]:
    """Return the directories that the sweeps below an output root planned."""
    for path in output_root.glob(f"{SWEEPS}/*/{_CELLS}"):
        for directory in orjson.loads(path.read_bytes()):
            yield output_root / directory
