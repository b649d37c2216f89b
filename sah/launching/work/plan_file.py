"""plan.json in the folder of a sweep: what a worker needs to compose and bundle its cells."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from omegaconf import DictConfig

from sah.errors import ConfigurationError
from sah.launching.outcome import Stamp, stamp
from sah.launching.plan import Cell
from sah.results.files import read_file, write_json
from sah.results.store import ERROR

_PLAN = "plan.json"
_FOLDERS_OF_A_COMMAND = ("command-line", "sah-studies")


@dataclass(frozen=True, kw_only=True)
class _PlannedCell:
    number: int
    directory: str
    """Relative to the output root of the sweep."""
    overrides: Sequence[str]
    shared_key: str | None
    bundle_max: int | None
    model_key: str
    error: Stamp | None
    """Of its error.json when it was planned, which is no reason to leave it out."""


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """How to compose the pending cells of a sweep, and what decides how they are bundled."""

    working_folder: str
    """Where the sweep was started; relative paths begin there."""
    config_name: str
    config_folders: Sequence[str]
    """Of --config-dir, and that of the shipped studies if --config-name names one."""
    hydra_overrides: Sequence[str]
    planned: Sequence[_PlannedCell]

    def cells(self, folder: Path) -> list[Cell]:
        """Return the cells of the sweep whose folder this is."""
        root = folder.parent.parent
        return [
            Cell(
                number=cell.number,
                overrides=tuple(cell.overrides),
                directory=Path(os.path.normpath(root / cell.directory)),
                packed_config=None,
                shared_key=cell.shared_key,
                bundle_max=cell.bundle_max,
                model_key=cell.model_key,
            )
            for cell in self.planned
        ]

    def earlier_errors(self) -> dict[int, Stamp]:
        """Return the stamps of errors from before the sweep, by the number of the cell."""
        return {cell.number: cell.error for cell in self.planned if cell.error is not None}


def write_plan(folder: Path, cells: Sequence[Cell], config: DictConfig) -> None:
    """Write the plan of a sweep into its folder.

    Args:
        folder: of the sweep.
        cells: the pending ones.
        config: the sweep's own configuration, `hydra` included.
    """
    root, hydra = folder.parent.parent, config.hydra
    sources = hydra.runtime.config_sources
    plan = WorkPlan(
        working_folder=str(hydra.runtime.cwd),
        config_name=str(hydra.job.config_name),
        config_folders=[
            str(source.path) for source in sources if source.provider in _FOLDERS_OF_A_COMMAND
        ],
        hydra_overrides=[str(override) for override in hydra.overrides.hydra],
        planned=[
            _PlannedCell(
                number=cell.number,
                directory=os.path.relpath(cell.directory, root),
                overrides=cell.overrides,
                shared_key=cell.shared_key,
                bundle_max=cell.bundle_max,
                model_key=cell.model_key,
                error=stamp(cell.directory / ERROR),
            )
            for cell in cells
        ],
    )
    write_json(folder / _PLAN, msgspec.to_builtins(plan))


def read_plan(folder: Path) -> WorkPlan:
    """Read the plan of a sweep from its folder.

    Raises:
        ConfigurationError: if there is none, or it cannot be read.
    """
    try:
        return msgspec.json.decode(read_file(folder / _PLAN), type=WorkPlan)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} has no {_PLAN}: give the folder of a sweep, OUTPUT_ROOT/.sweeps/TIME, or "
            "start the sweep again with this version"
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"{folder / _PLAN} cannot be read ({error}); start the sweep again"
        ) from error
