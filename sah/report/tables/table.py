"""A table of cells with texts and values, independent of how it is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sah.errors import ConfigurationError

_SIZES = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


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
    meaning: str = ""
    """What the legend says about it; empty for a column without an entry."""

    @property
    def is_heading(self) -> bool:
        """Whether its values may stand above their rows instead of in them."""
        return self.name in ("model", "benchmark", "subset", "protocol")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value and the text that shows it."""

    text: str
    """May contain any character; the output format escapes it."""
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
    """Warnings and explanations, shown below the legend."""


def legend_and_notes(table: Table, columns: Sequence[Column] | None = None) -> list[str]:
    """Return what is shown below the rows.

    Args:
        table: the table.
        columns: those that are shown; None: all.
    """
    shown = table.columns if columns is None else columns
    meanings = [f"{column.header}: {column.meaning}" for column in shown if column.meaning]
    legend = [f"{'; '.join(meanings)}; –: not measured."] if meanings else []
    return [*legend, *table.notes]


def only_columns(table: Table, names: Sequence[str]) -> Table:
    """Return the table with some of its columns, in the given order.

    Args:
        table: the whole table.
        names: names or headers of its columns.

    Raises:
        ConfigurationError: for a name that is not a column, or that is given twice.
    """
    known = [column.name for column in table.columns]
    by_header = {column.header: column.name for column in table.columns}
    chosen = [name if name in known else by_header.get(name, name) for name in names]
    for name in chosen:
        if name not in known:
            raise ConfigurationError(
                f"--columns: {name!r} is not a column of this table; take {', '.join(known)}"
            )
        if chosen.count(name) > 1:
            raise ConfigurationError(f"--columns: {name!r} is given twice; name each column once")
    places = [known.index(name) for name in chosen]
    return replace(
        table,
        columns=[table.columns[place] for place in places],
        rows=[[row[place] for place in places] for row in table.rows],
    )


def with_texts(table: Table, change: Callable[[str], str]) -> Table:
    """Return the table with `change` applied to every text that is shown.

    Each output format calls this once with its escaping, so that no text can be forgotten.
    """
    return Table(
        columns=[replace(column, header=change(column.header)) for column in table.columns],
        rows=[[replace(cell, text=change(cell.text)) for cell in row] for row in table.rows],
        caption=change(table.caption),
        notes=[change(note) for note in table.notes],
    )


def number(value: float | None, decimals: int = 3, scale: float = 1.0) -> Cell:
    """Return the cell of a number; None becomes a dash, never 0, and 0 has no sign."""
    if value is None:
        return Cell(text="–")
    return Cell(text=f"{scale * value:z.{decimals}f}", value=value)


def compact(value: float | None) -> Cell:
    """Return the cell of a number of any size, with three significant digits: 87.5, 1.2k, 3.4M."""
    if value is None:
        return Cell(text="–")
    rounded = float(f"{value:.3g}")
    size = next((size for size in _SIZES if abs(rounded) >= size), 1)
    return Cell(text=f"{rounded / size:.3g}{_SIZES.get(size, '')}", value=value)


def label(value: Any) -> Cell:
    """Return the cell of a name or setting."""
    return Cell(text="" if value is None else str(value), value=value)
