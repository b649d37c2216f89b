"""The plan of a sweep: every cell checked, complete and duplicate ones set apart."""

import pickle
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sah.errors import SahError
from sah.execution.building import explain
from sah.execution.checks import check, find_complete
from sah.launching.composer import Composer
from sah.launching.composition_memory import CompositionMemory
from sah.results.contents import fix_contents
from sah.results.identity import model_key, resolved, shared_key
from sah.results.schema import subset_name
from sah.results.sweep_folders import PlannedCell


@dataclass(frozen=True, kw_only=True)
class PackedConfig:
    """A configuration in a few hundred bytes, compressed against a similar one."""

    content: bytes
    dictionary: bytes
    """The pickle of the similar one, shared by all cells of a sweep."""

    @classmethod
    def pack(cls, config: DictConfig, similar: "PackedConfig | None") -> "PackedConfig":
        """Pack a configuration; `similar` is a packed one that it has much in common with."""
        pickled = pickle.dumps(config)
        dictionary = pickled if similar is None else similar.dictionary
        packing = zlib.compressobj(level=1, zdict=dictionary)
        return cls(content=packing.compress(pickled) + packing.flush(), dictionary=dictionary)

    def unpack(self) -> DictConfig:
        """Return a new copy of the configuration."""
        pickled = zlib.decompressobj(zdict=self.dictionary).decompress(self.content)
        config: DictConfig = pickle.loads(pickled)  # noqa: S301 (our own)
        return config


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One experiment of a sweep."""

    number: int
    """Position in the sweep; changes when the sweep does."""
    overrides: tuple[str, ...]
    directory: Path
    packed_config: PackedConfig | None
    """None unless it is pending."""
    shared_key: str | None = None
    """Equal for cells that may be arms of one job; None for a job of a single cell."""
    bundle_max: int | None = None
    model_key: str = ""
    """Equal for pending cells that load the same model."""
    planned: PlannedCell = field(default_factory=PlannedCell)
    """What `sah status` shows of it until it begins."""

    @property
    def config(self) -> DictConfig:
        """A new copy of the composed configuration of a pending cell."""
        assert self.packed_config is not None, "only a pending cell keeps it"
        return self.packed_config.unpack()

    @property
    def label(self) -> str:
        """The overrides, for people."""
        return " ".join(filter_overrides(self.overrides))


@dataclass(kw_only=True)
class SweepPlan:
    """The cells of a sweep by what has to be done."""

    cells: list[Cell] = field(default_factory=list)
    """One for each set of overrides, in order."""
    finished: list[Cell] = field(default_factory=list)
    repeated: list[Cell] = field(default_factory=list)
    """Other spellings of a pending cell."""
    pending: list[Cell] = field(default_factory=list)
    problems: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    """Why cells cannot work, with the overrides of the cells."""

    @property
    def refused(self) -> int:
        """The number of cells that cannot work."""
        return sum(map(len, self.problems.values()))

    def describe_problems(self) -> str:
        """Say each problem once, under the overrides that its cells have in common."""
        working = [set(cell.overrides) for cell in self.cells]
        every = [set(cell) for cells in self.problems.values() for cell in cells] + working
        everywhere = set.intersection(*every) if len(every) > 1 else set()
        lines = []
        for reason, cells in self.problems.items():
            shared = set.intersection(*map(set, cells))
            words = [word for word in filter_overrides(cells[0]) if word in shared - everywhere]
            # Cells with nothing in common, or only what other cells have too: show the first.
            label = " ".join(words or filter_overrides(cells[0]))
            if len(cells) > 1:
                label += f" ({len(cells)} experiments)" if words else f" and {len(cells) - 1} more"
            lines.append(f"  {label}\n" + textwrap.indent(reason, "    "))
        return "\n".join(lines)


def plan_sweep(
    job_overrides: Sequence[Sequence[str]],
    composer: Composer,
    memory: CompositionMemory,
    *,
    writes: bool = True,
) -> SweepPlan:
    """Compose and check every cell. Starts nothing, loads no model.

    Args:
        job_overrides: of every cell.
        composer: of the sweep.
        memory: of finished cells; new ones are noted, but not saved.
        writes: as in `check`.
    """
    plan = SweepPlan()
    seen: set[Path] = set()
    packed: PackedConfig | None = None
    contents: dict[str, Any] = {}
    for number, job in enumerate(job_overrides):
        overrides = tuple(job)
        try:
            remembered = memory.finished_directory(overrides)
            if remembered is not None:
                cell = Cell(
                    number=number, overrides=overrides, directory=remembered, packed_config=None
                )
                plan.cells.append(cell)
                plan.finished.append(cell)
                continue
            config = composer.compose(overrides)
            read = fix_contents(config, contents)
            directory, result = find_complete(config)
            if result is None and directory not in seen:
                check(config, overrides, writes=writes)
        except (SahError, HydraException, OmegaConfBaseException) as error:
            reason = explain(error)
            plan.problems.setdefault(reason, []).append(overrides)
            continue
        memory.remember(overrides, directory, read)
        runs = result is None and directory not in seen
        if runs:
            packed = PackedConfig.pack(config, packed)
        cell = Cell(
            number=number,
            overrides=overrides,
            directory=directory,
            packed_config=packed if runs else None,
            shared_key=shared_key(config) if runs and config.bundle == "attention" else None,
            bundle_max=config.bundle_max,
            model_key=model_key(config) if runs else "",
            planned=_planned(config, overrides) if runs else PlannedCell(),
        )
        plan.cells.append(cell)
        if result is not None:
            plan.finished.append(cell)
        elif runs:
            plan.pending.append(cell)
        else:
            plan.repeated.append(cell)
        seen.add(directory)
    return plan


def _planned(config: DictConfig, overrides: Sequence[str]) -> PlannedCell:
    return PlannedCell(
        model=str(config.model.name),
        attention=str(config.sparse_attention.name),
        benchmark=str(config.benchmark.name),
        subset=subset_name(resolved(OmegaConf.select(config, "benchmark.subset"))),
        protocol=str(config.protocol.name),
        overrides=filter_overrides(overrides),
    )
