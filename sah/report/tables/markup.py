"""A table as CSV, Markdown or LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Literal

from sah.report.tables.table import Cell, Table


def render(table: Table, text_format: Literal["md", "csv", "latex"]) -> str:
    """Return the table as the content of a file."""
    if text_format == "csv":
        return _csv(table)
    return _markdown(table) if text_format == "md" else _latex(table)


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
    """Escape Markdown and HTML: names may come from untrusted files."""
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
    """Return a tabular environment for the booktabs package."""
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
