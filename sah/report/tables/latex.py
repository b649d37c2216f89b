r"""A table as LaTeX that compiles with pdflatex, whatever its names contain.

Cells are ASCII and use only commands that every font encoding has, so that they depend on neither
inputenc nor fontenc. A character without such a command is written as its code: [U+4E2D].
"""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from sah.report.tables.table import Cell, Table, legend_and_notes, with_texts
from sah.terminal import one_line


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_MATHS = _pairs(r"""
α \alpha β \beta γ \gamma δ \delta ε \epsilon ζ \zeta η \eta θ \theta ι \iota κ \kappa λ \lambda
μ \mu µ \mu ν \nu ξ \xi π \pi ρ \rho ς \varsigma σ \sigma τ \tau υ \upsilon φ \phi χ \chi ψ \psi
ω \omega Γ \Gamma Δ \Delta Θ \Theta Λ \Lambda Ξ \Xi Π \Pi Σ \Sigma Υ \Upsilon Φ \Phi Ψ \Psi
Ω \Omega − - × \times ÷ \div ± \pm · \cdot ≈ \approx ≤ \leq ≥ \geq ≠ \neq ≡ \equiv ∼ \sim
→ \rightarrow ← \leftarrow ↔ \leftrightarrow ⇒ \Rightarrow ↑ \uparrow ↓ \downarrow ∞ \infty ∈ \in
√ \surd ∑ \sum ∏ \prod ∂ \partial ∇ \nabla ∝ \propto ∪ \cup ∩ \cap • \bullet ¬ \neg « \ll » \gg
° ^{\circ} ¹ ^{1} ² ^{2} ³ ^{3}
""")
# The quotation mark is a shorthand in babel's German, Dutch and other languages.
_TEXT = _pairs(r"""
\ \textbackslash{} & \& % \% $ \$ # \# _ \_ { \{ } \} ~ \textasciitilde{} ^ \textasciicircum{}
< \textless{} > \textgreater{} | \textbar{} " \symbol{34} – -- — --- ‘ ` ’ ' “ `` ” '' … \ldots{}
ß \ss{} æ \ae{} Æ \AE{} œ \oe{} Œ \OE{} ø \o{} Ø \O{} ł \l{} Ł \L{} ı \i{} § \S{} ¶ \P{}
© \copyright{} £ \pounds{} † \dag{} ‡ \ddag{}
""")
_TEXT |= {symbol: f"${command}$" for symbol, command in _MATHS.items()}
_TEXT |= {"\u00a0": "~", "\u2009": r"\,", "\u202f": r"\,", "\u00ad": r"\-"}
_LIGATURES = ("--", "``", "''", ",,", "!`", "?`")
# Combining characters above and below a letter, and the accent commands for them.
_MARKS_ABOVE = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c"
_ABOVE = dict(zip(_MARKS_ABOVE, "`'^~=u.\"rHv", strict=True))
_BELOW = {"\u0323": "d", "\u0327": "c", "\u0331": "b"}
_DOTLESS = {"i": r"\i", "j": r"\j"}


def latex(table: Table) -> str:
    """Return a tabular environment for the packages booktabs and, for grey rows, xcolor."""
    grey = any(cell.style == "dim" for row in table.rows for cell in row)
    # A line end in a caption would end the comment, and the rest would be LaTeX.
    comments = [one_line(text) for text in (table.caption, *legend_and_notes(table)) if text]
    comments.append(rf"Needs \usepackage{{booktabs{',xcolor' if grey else ''}}}")
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    table = with_texts(table, latex_text)
    lines = [f"% {text}" for text in comments]
    lines += [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
    lines.append(_line([column.header for column in table.columns]))
    lines.append("\\midrule")
    for row in table.rows:
        lines.append(_line([_cell(cell) for cell in row]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Return the LaTeX that prints a text."""
    text = unicodedata.normalize("NFC", one_line(text))
    return "".join(
        _character(one) + ("{}" if one + following in _LIGATURES else "")
        for one, following in pairwise(f"{text} ")
    )


def _character(character: str) -> str:
    if character in _TEXT:
        return _TEXT[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    letter, accent = parts[0], parts[1:]
    if letter.isascii() and letter.isalpha():
        if accent in _BELOW:
            return f"\\{_BELOW[accent]}{{{letter}}}"
        if accent in _ABOVE:
            # An accent replaces the dot of i and j.
            return f"\\{_ABOVE[accent]}{{{_DOTLESS.get(letter, letter)}}}"
    return f"[U+{ord(character):04X}]"


def _line(cells: Sequence[str]) -> str:
    line = " & ".join(cells) + r" \\"
    # The command that ends the line above would read these as its argument.
    return f"{{}}{line}" if line.startswith(("[", "*", "(")) else line


def _cell(cell: Cell) -> str:
    if cell.text and cell.style in ("bold", "alarm"):
        return f"\\textbf{{{cell.text}}}"
    return f"\\textcolor{{gray}}{{{cell.text}}}" if cell.text and cell.style == "dim" else cell.text
