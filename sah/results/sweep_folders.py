"""The folder of a sweep below the output root: its logs, its summary and its planned cells."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """What `sah status` shows of a cell that has not begun."""

    model: str = ""
    attention: str = ""
    benchmark: str = ""
    subset: str = ""
    protocol: str = ""
    overrides: Sequence[str] = ()


def write_planned(folder: Path, cells: Mapping[Path, PlannedCell], output_root: Path) -> None:
    """Write the planned cells by directory, so that `sah status` can show those waiting.

    Paths are relative to the output root; those of cells with another root begin with `..`.
    """
    paths = {os.path.relpath(path, output_root): cell for path, cell in cells.items()}
    write_json(folder / _CELLS, paths)


def planned_cells(folder: Path) -> Iterator[tuple[Path, PlannedCell]]:
    """Yield the cells that sweeps planned, of an output root or of a folder in one.

    A list that cannot be read is left out with a warning.
    """
    for path in folder.glob(f"{SWEEPS}/*/{_CELLS}"):
        for directory, cell in _planned(path).items():
            yield folder / directory, cell
    for root in folder.absolute().parents:
        inside = folder.absolute().relative_to(root)
        for path in root.glob(f"{SWEEPS}/*/{_CELLS}"):
            for directory, cell in _planned(path).items():
                if Path(directory).is_relative_to(inside):
                    yield folder / Path(directory).relative_to(inside), cell


def _planned(path: Path) -> dict[str, PlannedCell]:
    try:
        # Earlier versions wrote the directories alone.
        found = msgspec.json.decode(read_file(path), type=dict[str, PlannedCell] | list[str])
        return dict.fromkeys(found, PlannedCell()) if isinstance(found, list) else found
    except (OSError, DamagedResults, ValueError) as error:
        logger.warning("left out: the planned cells of %s: %s", plain(str(path)), error)
        return {}
