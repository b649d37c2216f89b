"""A table as CSV, Markdown or LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any, Literal

from sah.report.tables.latex import latex
from sah.report.tables.table import Table, legend_and_notes, with_texts
from sah.terminal import one_line


def render(table: Table, text_format: Literal["md", "csv", "latex"]) -> str:
    """Return the table as the content of a file."""
    if text_format == "csv":
        return _csv(table)
    return _markdown(table) if text_format == "md" else latex(table)


def _csv(table: Table) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_csv_value(column.name) for column in table.columns])
    for row in table.rows:
        writer.writerow([_csv_value(cell.value) for cell in row])
    return file.getvalue()


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _csv_value(value: Any) -> Any:
    """Return a number as it is, and a text without control characters.

    A text that a spreadsheet would read as a formula gets an apostrophe in front.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    # Full-width signs begin a formula too.
    formula = text[:1] in tuple("\t\r\n") or text.lstrip()[:1] in tuple("=+-@＝＋－＠")
    apostrophe = "'" if formula and not _NUMBER.fullmatch(text) else ""
    return apostrophe + one_line(text)


def _markdown(table: Table) -> str:
    table = with_texts(table, _markdown_text)

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [f"{_paragraph(table.caption)}\n"] if table.caption else []
    lines += [line([column.header for column in table.columns]), line(rule)]
    for row in table.rows:
        lines.append(line([_emphasis(cell.text, cell.style) for cell in row]))
    lines += [f"\n{_paragraph(note)}" for note in legend_and_notes(table)]
    return "\n".join(lines) + "\n"


def _markdown_text(text: str) -> str:
    """Escape Markdown, HTML and control characters: names may come from untrusted files."""
    return re.sub(r"([\\`*<>~\[\]]|\b_|_\b|&(?=[#\w]))", r"\\\1", one_line(text))


def _paragraph(text: str) -> str:
    """Escape what would make a heading or a list of a paragraph."""
    return re.sub(r"^\s*([#+=-])", r"\\\1", text)


def _emphasis(text: str, style: str) -> str:
    return f"**{text}**" if text and style in ("bold", "alarm") else text
