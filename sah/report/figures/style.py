"""Colours, markers and line styles of methods, the same in every figure of a report."""

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe & Ito (2008): distinguishable with every kind of colour blindness. Without yellow, which is
# invisible in print; black is dense.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_LINES = ("-", "--", "-.", ":")

DENSE_COLOUR = "#000000"


@dataclass(frozen=True, kw_only=True)
class Look:
    """The look of one method; marker and line style identify it without colour too."""

    colour: str
    marker: str
    line: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Assign a look to each method; dense is black."""
    found = {"dense": Look(colour=DENSE_COLOUR, marker="o", line="--")}
    for number, name in enumerate(sorted(set(names) - {"dense"})):
        found[name] = Look(
            colour=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            line=_LINES[number // len(_COLOURS) % len(_LINES)],
        )
    return found
