"""The folder of a sweep below the output root: its logs, its summary and its planned cells."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sah.errors import DamagedResults
from sah.results.files import read_file, write_json
from sah.terminal import plain

logger = logging.getLogger(__name__)

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


def planned_directories(folder: Path) -> Iterator[Path]:
    """Return the directories that sweeps planned, of an output root or of a folder in one.

    A list that cannot be read is left out with a warning.
    """
    for path in folder.glob(f"{SWEEPS}/*/{_CELLS}"):
        for directory in _planned(path):
            yield folder / directory
    for root in folder.absolute().parents:
        inside = folder.absolute().relative_to(root)
        for path in root.glob(f"{SWEEPS}/*/{_CELLS}"):
            for planned in map(Path, _planned(path)):
                if planned.is_relative_to(inside):
                    yield folder / planned.relative_to(inside)


def _planned(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(read_file(path), type=list[str])
    except (OSError, DamagedResults, ValueError) as error:
        logger.warning("left out: the planned cells of %s: %s", plain(str(path)), error)
        return []
