"""Colours, markers and lines of methods: the same in every figure of a report."""

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe & Ito (2008): told apart with every kind of colour blindness. Yellow is left out, it
# does not print; black is dense.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_LINES = ("-", "--", "-.", ":")

# The same markers in plotly's words.
PLOTLY_MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "*": "star",
    "h": "hexagon",
}

DENSE_COLOUR = "#000000"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one method is drawn. Marker and line tell methods apart without any colour."""

    colour: str
    marker: str
    line: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each method; dense is black."""
    found = {"dense": Look(colour=DENSE_COLOUR, marker="o", line="--")}
    for number, name in enumerate(sorted(set(names) - {"dense"})):
        found[name] = Look(
            colour=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            line=_LINES[number // len(_COLOURS) % len(_LINES)],
        )
    return found
