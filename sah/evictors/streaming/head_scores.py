"""Files that score the heads of a model."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

from sah.content.calibration_files import require_composed


def lowest_heads(file: Path, share: float, composed: str | None) -> tuple[tuple[bool, ...], ...]:
    """Return which key-value heads of each layer have the lowest scores.

    Args:
        file: numbers, a row for each layer and a column for each key-value head; clipped to [0, 1].
        share: of all heads, in [0, 1]; of equal scores, the first ones count as lower.
        composed: digest of the file when the experiment was composed; None is not checked.

    Raises:
        ValueError: if the file cannot be read, is not such a table, or has another content now.
    """
    try:
        return _lowest(file, file.stat().st_mtime_ns, share, composed)
    except OSError as error:
        raise ValueError(f"the scores of the heads cannot be read: {error}") from error


@functools.lru_cache(maxsize=8)
def _lowest(
    file: Path, modified: int, share: float, composed: str | None
) -> tuple[tuple[bool, ...], ...]:
    require_composed(file, composed)
    try:
        text = file.read_text(encoding="utf-8")
        rows = [[float(value) for value in line.split()] for line in text.splitlines() if line]
    except ValueError as error:
        raise ValueError(f"{file} is not a table of numbers: {error}") from error
    if not rows or len({len(row) for row in rows}) != 1 or not all(map(_finite, rows)):
        raise ValueError(f"{file} must have the same number of finite values in each row")
    return lowest_of([[min(1.0, max(0.0, value)) for value in row] for row in rows], share)


def lowest_of(rows: Sequence[Sequence[float]], share: float) -> tuple[tuple[bool, ...], ...]:
    """Return which heads of each layer have the lowest scores; see `lowest_heads`."""
    scores = [value for row in rows for value in row]
    order = sorted(range(len(scores)), key=scores.__getitem__)
    lowest = set(order[: round(len(scores) * share)])
    heads = len(rows[0])
    return tuple(
        tuple(layer * heads + head in lowest for head in range(heads)) for layer in range(len(rows))
    )


def _finite(row: list[float]) -> bool:
    return all(map(math.isfinite, row))
