"""A table of cells with texts and values, independent of how it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sah.terminal import plain


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column with a header for people and a name for programs."""

    name: str
    """Header in CSV, unit included."""
    header: str
    """Header everywhere else."""
    numeric: bool = True
    """Whether the column is aligned to the right."""
    importance: int = 0
    """On a narrow terminal the least important columns are dropped first; 0 means never."""

    @property
    def is_heading(self) -> bool:
        """Whether its values may stand above their rows instead of in them."""
        return self.name in ("model", "benchmark", "subset", "protocol")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value and the text that shows it."""

    text: str
    value: Any = None
    """None if it was not measured."""
    style: Literal["", "dim", "bold", "alarm"] = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows with a caption and notes."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    """The names that all rows have in common."""
    notes: Sequence[str] = field(default=())
    """Legend and warnings, shown below the rows."""


def number(value: float | None, decimals: int = 3, scale: float = 1.0) -> Cell:
    """Return the cell of a number; None becomes a dash, never 0, and 0 has no sign."""
    if value is None:
        return Cell(text="–")
    return Cell(text=f"{scale * value:z.{decimals}f}", value=value)


def label(value: Any) -> Cell:
    """Return the cell of a name or setting."""
    return Cell(text="" if value is None else plain(str(value)), value=value)
