"""A table, and how it reads on a terminal, in Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from sah.terminal import plain


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: how it is called for people, and for programs."""

    name: str
    """Unit included, as a program wants it: the header of CSV."""
    header: str
    numeric: bool = True
    """Numbers are aligned to the right."""
    importance: int = 0
    """On a narrow terminal, columns of the lowest importance are left out first; 0 never."""

    @property
    def is_heading(self) -> bool:
        """Whether it says what the following rows are about, and may stand above them."""
        return self.name in ("model", "benchmark", "subset", "protocol")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value, how it is shown, and how it is meant."""

    text: str
    value: Any = None
    """None where it was not measured."""
    style: Literal["", "dim", "bold", "alarm"] = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns, rows of as many cells, and what a reader must know beside them."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    """What all rows have in common."""
    notes: Sequence[str] = field(default=())


_STYLES = {"": "", "dim": "dim", "bold": "bold", "alarm": "bold red"}
_GAP = "  "
_NARROWEST = 10
_NARROWEST_HEADER = 7


def number(value: float | None, decimals: int = 3, scale: float = 1.0) -> Cell:
    """A number; what was not measured is shown as a dash, never as 0."""
    if value is None:
        return Cell(text="–")
    return Cell(text=f"{scale * value:.{decimals}f}", value=value)


def label(value: Any) -> Cell:
    """A name or a setting."""
    return Cell(text="" if value is None else plain(str(value)), value=value)


def render(table: Table, text_format: Literal["md", "csv", "latex"]) -> str:
    """The table as text for a file."""
    if text_format == "csv":
        return _csv(table)
    return _markdown(table) if text_format == "md" else _latex(table)


def show(table: Table, console: Console) -> None:
    """Show the table; fits the width of the console, 80 columns in a log file."""
    width = console.width
    headings: list[int] = []
    columns, widths, left_out = _fitting(table, width)
    if left_out or _cuts_names(table, columns, widths):
        above = [number for number, column in enumerate(table.columns) if column.is_heading]
        about = {tuple(row[number].text for number in above) for row in table.rows}
        # A line for every other row would be no gain.
        if 2 * len(about) <= len(table.rows):
            headings = above
            columns, widths, left_out = _fitting(table, width, above=headings)
    lines = []
    if table.caption:
        lines.append(Text(plain(table.caption), style="bold"))
    head = [Cell(text=table.columns[number].header) for number in columns]
    lines.append(_line(table, columns, widths, head))
    lines.append(Text("─" * (sum(widths) + len(_GAP) * (len(widths) - 1))))
    place: list[str] = []
    for row in table.rows:
        if place != (place := [row[number].text for number in headings]):
            lines.append(Text("  ".join(filter(None, place)), style="bold"))
        lines.append(_line(table, columns, widths, [row[n] for n in columns]))
    console.print(Text("\n").join(lines), soft_wrap=True, highlight=False)
    notes = list(table.notes)
    if left_out:
        notes.append(
            f"Left out for want of width: {', '.join(left_out)} (--format csv has everything)."
        )
    for note in notes:
        console.print(Text(plain(note)), highlight=False)


def _cuts_names(table: Table, columns: Sequence[int], widths: Sequence[int]) -> bool:
    return any(
        cell_len(row[column].text) > width
        for column, width in zip(columns, widths, strict=True)
        for row in table.rows
    )


def _fitting(
    table: Table, width: int, above: Sequence[int] = ()
) -> tuple[list[int], list[int], list[str]]:
    """The columns to show, their widths, and the headers of those left out.

    Those that stand above their rows take no width.
    """
    kept = [number for number in range(len(table.columns)) if number not in above]
    widths = [
        max(cell_len(text) for text in (column.header, *(row[number].text for row in table.rows)))
        for number, column in enumerate(table.columns)
    ]
    left_out: list[str] = []

    def total() -> int:
        return sum(widths[number] for number in kept) + len(_GAP) * (len(kept) - 1)

    for number, column in enumerate(table.columns):
        if total() > width and not column.numeric:
            # A long name over short values: the name is cut before any number is left out.
            cells = max((cell_len(row[number].text) for row in table.rows), default=0)
            widths[number] = min(widths[number], max(cells, _NARROWEST_HEADER))
    while total() > width:
        optional = [number for number in kept if table.columns[number].importance]
        if not optional:
            break
        least = min(optional, key=lambda number: (table.columns[number].importance, -number))
        kept.remove(least)
        left_out.append(table.columns[least].header)
    while total() > width:
        names = [number for number in kept if not table.columns[number].numeric]
        widest = max(names, key=lambda number: widths[number], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] = max(_NARROWEST, widths[widest] - (total() - width))
    return kept, [widths[number] for number in kept], left_out


def _line(
    table: Table, columns: Sequence[int], widths: Sequence[int], cells: Sequence[Cell]
) -> Text:
    line = Text()
    for position, (column, width, cell) in enumerate(zip(columns, widths, cells, strict=True)):
        text = cell.text
        if cell_len(text) > width:
            text = set_cell_size(text, width - 1) + "…"
        padding = " " * (width - cell_len(text))
        if table.columns[column].numeric:
            text = padding + text
        elif position < len(columns) - 1:
            text += padding
        line.append(_GAP * (position > 0) + text, style=_STYLES[cell.style])
    return line


def _csv(table: Table) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    for row in table.rows:
        writer.writerow([cell.value for cell in row])
    return file.getvalue()


def _markdown(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [f"{_no_markup(table.caption)}\n"] if table.caption else []
    lines += [line([column.header for column in table.columns]), line(rule)]
    for row in table.rows:
        lines.append(line([_emphasis(_no_markup(cell.text), cell.style) for cell in row]))
    lines += [f"\n{_no_markup(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def _no_markup(text: str) -> str:
    """Names come from files: no HTML, no emphasis, no links."""
    return re.sub(r"([\\`*<>\[\]]|\b_|_\b)", r"\\\1", text)


def _emphasis(text: str, style: str) -> str:
    return f"**{text}**" if text and style in ("bold", "alarm") else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
}


def _latex(table: Table) -> str:
    """A tabular for booktabs."""
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [f"% {text}" for text in (table.caption, *table.notes) if text]
    lines += [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
    lines.append(_latex_line([_latex_text(column.header) for column in table.columns]))
    lines.append("\\midrule")
    for row in table.rows:
        lines.append(_latex_line([_latex_cell(cell) for cell in row]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.text)
    if text and cell.style in ("bold", "alarm"):
        return f"\\textbf{{{text}}}"
    return f"\\textcolor{{gray}}{{{text}}}" if text and cell.style == "dim" else text
