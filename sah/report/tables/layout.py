"""Fitting a table into the width of a terminal."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sah.report.tables.table import Cell, Table, legend_and_notes, with_texts
from sah.terminal import one_line

_STYLES = {"": "", "dim": "dim", "bold": "bold", "alarm": "bold red"}
_GAP = "  "
_NARROWEST = 10
_NARROWEST_HEADER = 7


def show(table: Table, console: Console, *, advice: str = "--format csv has every column") -> None:
    """Show a table within the width of the console, which is 80 columns in a log file.

    If it is too wide, names that many rows share move above their rows, then the least important
    columns are dropped, then names are truncated. rich has none of these but the last.

    Args:
        table: the table.
        console: where it is shown.
        advice: where the columns are that were dropped.
    """
    table = with_texts(table, one_line)
    width = console.width
    headings: list[int] = []
    columns, widths, left_out = _fitting(table, width)
    if left_out or _cuts_names(table, columns, widths):
        above = [number for number, column in enumerate(table.columns) if column.is_heading]
        about = {tuple(row[number].text for number in above) for row in table.rows}
        # More headings than every second row would make the table longer, not narrower.
        if 2 * len(about) <= len(table.rows):
            headings = above
            columns, widths, left_out = _fitting(table, width, above=headings)
    lines = []
    if table.caption:
        lines.append(Text(table.caption, style="bold"))
    head = [Cell(text=table.columns[number].header) for number in columns]
    lines.append(_line(table, columns, widths, head))
    lines.append(Text("─" * (sum(widths) + len(_GAP) * (len(widths) - 1))))
    heading: list[str] = []
    for row in table.rows:
        if heading != (heading := [row[number].text for number in headings]):
            lines.append(Text("  ".join(filter(None, heading)), style="bold"))
        lines.append(_line(table, columns, widths, [row[n] for n in columns]))
    console.print(Text("\n").join(lines), soft_wrap=True, highlight=False)
    notes = legend_and_notes(table, [table.columns[number] for number in columns])
    if left_out:
        notes.append(f"Too narrow for: {', '.join(left_out)} ({advice}).")
    for note in notes:
        for line in Text(note).wrap(console, width):
            line.rstrip()
            console.print(line, highlight=False, soft_wrap=True)


def _cuts_names(table: Table, columns: Sequence[int], widths: Sequence[int]) -> bool:
    return any(
        cell_len(row[column].text) > width
        for column, width in zip(columns, widths, strict=True)
        for row in table.rows
    )


def _fitting(
    table: Table, width: int, above: Sequence[int] = ()
) -> tuple[list[int], list[int], list[str]]:
    """Choose the columns to show.

    Args:
        table: the table.
        width: of the console.
        above: columns whose values stand above their rows and need no width.

    Returns:
        The columns, their widths, and the headers of those left out.
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
            # A long header over short values is truncated before a column is dropped.
            cells = max((cell_len(row[number].text) for row in table.rows), default=0)
            widths[number] = min(widths[number], max(cells, _NARROWEST_HEADER))
    while total() > width:
        optional = [number for number in kept if table.columns[number].importance]
        if not optional:
            break
        least = min(optional, key=lambda number: (table.columns[number].importance, -number))
        kept.remove(least)
        left_out.append(table.columns[least].header)
    for number in kept:
        # The columns that were dropped may have made room for a whole header.
        header = cell_len(table.columns[number].header)
        if header > widths[number] and total() + header - widths[number] <= width:
            widths[number] = header
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
        text = Text(cell.text, style=_STYLES[cell.style])
        text.truncate(width, overflow="ellipsis")
        if table.columns[column].numeric:
            text.pad_left(width - text.cell_len)
        elif position < len(columns) - 1:
            text.pad_right(width - text.cell_len)
        line.append(_GAP if position else "")
        line.append_text(text)
    return line
