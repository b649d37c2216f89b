"""Which cells of a sweep become the arms of one job."""

from collections.abc import Sequence
from dataclasses import dataclass

from sah.launching.plan import Cell


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The cells of one job: they load one model and prefill each context once."""

    cells: tuple[Cell, ...]
    """At least one, in the order of the sweep."""

    @property
    def number(self) -> int:
        """Names the job: the number of its first cell."""
        return self.cells[0].number


def bundle_cells(cells: Sequence[Cell], places: int) -> list[Bundle]:
    """Put cells that may share a prefill into one job, but leave no place without work.

    Args:
        cells: those that are to run, each with its own `bundle_max`.
        places: jobs that can run at once. The largest bundle is halved until there are so
            many jobs, or nothing is left to halve.

    Returns:
        Bundles in the order of their first cells.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        key = f"cell {cell.number}" if cell.shared_key is None else cell.shared_key
        groups.setdefault(key, []).append(cell)
    parts = [part for group in groups.values() for part in _within_limit(group)]
    while len(parts) < places:
        # The first of the largest: the same split whatever else there is.
        largest = max(range(len(parts)), key=lambda n: len(parts[n]), default=None)
        if largest is None or len(parts[largest]) == 1:
            break
        parts[largest : largest + 1] = _evenly(parts[largest], 2)
    bundles = [Bundle(cells=tuple(part)) for part in parts]
    return sorted(bundles, key=lambda bundle: bundle.number)


def _within_limit(group: list[Cell]) -> list[list[Cell]]:
    limit = group[0].bundle_max
    return [group] if limit is None else _evenly(group, -(-len(group) // limit))


def _evenly(cells: list[Cell], parts: int) -> list[list[Cell]]:
    """Consecutive parts whose sizes differ by one at most."""
    size, larger = divmod(len(cells), parts)
    found, start = [], 0
    for number in range(parts):
        stop = start + size + (number < larger)
        found.append(cells[start:stop])
        start = stop
    return found
