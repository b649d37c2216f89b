"""Bundles: cells that share a model and prefills, and run as the arms of one job."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sah.launching.plan import Cell


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Cells that need one model, and that prefill each context once."""

    cells: tuple[Cell, ...]
    """At least one, in the order of the sweep."""

    @property
    def number(self) -> int:
        """The number of its first cell, which names the job."""
        return self.cells[0].number

    @property
    def model_key(self) -> str:
        """Equal for bundles that load the same model."""
        return self.cells[0].model_key


def bundle_cells(cells: Sequence[Cell], slots: int) -> list[Bundle]:
    """Put cells that may share prefills into one job, but leave no slot idle.

    Args:
        cells: the pending ones, each with its own `bundle_max`.
        slots: jobs that can run at once. The largest bundle is halved until there are this
            many jobs or only single cells are left.

    Returns:
        Bundles in the order of their first cells.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        key = f"cell {cell.number}" if cell.shared_key is None else cell.shared_key
        groups.setdefault(key, []).append(cell)
    parts = [part for group in groups.values() for part in _within_limit(group)]
    while len(parts) < slots:
        # The first of the largest, so that the split is deterministic.
        largest = max(range(len(parts)), key=lambda n: len(parts[n]), default=None)
        if largest is None or len(parts[largest]) == 1:
            break
        parts[largest : largest + 1] = _evenly(parts[largest], 2)
    bundles = [Bundle(cells=tuple(part)) for part in parts]
    return sorted(bundles, key=lambda bundle: bundle.number)


def take_next(waiting: deque[Bundle], model_key: str) -> Bundle | None:
    """Take the first waiting bundle of a model out of the queue; None if there is none."""
    for bundle in waiting:
        if bundle.model_key == model_key:
            waiting.remove(bundle)
            return bundle
    return None


def group_by_model(bundles: Sequence[Bundle], size: int) -> list[list[Bundle]]:
    """Put bundles of one model into groups of at most this size, in order."""
    groups: list[list[Bundle]] = []
    filling: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        group = filling.get(bundle.model_key)
        if group is None or len(group) == size:
            groups.append(group := [])
            filling[bundle.model_key] = group
        group.append(bundle)
    return groups


def _within_limit(group: list[Cell]) -> list[list[Cell]]:
    limit = group[0].bundle_max
    return [group] if limit is None else _evenly(group, -(-len(group) // limit))


def _evenly(cells: list[Cell], parts: int) -> list[list[Cell]]:
    """Split into consecutive parts whose sizes differ by at most one."""
    size, larger = divmod(len(cells), parts)
    found, start = [], 0
    for number in range(parts):
        stop = start + size + (number < larger)
        found.append(cells[start:stop])
        start = stop
    return found
