"""Building blocks of the figures: style, panels, points with intervals, legends."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sah.report.figures.series import ScoredPoint
from sah.report.figures.style import DENSE_COLOUR, Look

PANEL = (3.3, 2.6)
"""Size of one panel in inches."""
WIDE_PANEL = (4.8, 3.8)
"""Size in inches of a panel with many methods."""
ROWS_WIDTH = 2.4
"""Width in inches of a panel with a row per method, without the labels of its rows."""
_COLUMNS = 3
_WIDEST = 12.0
"""Width in inches from which panels with long labels move to the next row."""

# Average widths of a character in inches, at the font sizes of the style.
_CHARACTER = 0.07
_BOLD_CHARACTER = 0.078
_LINE = 0.14
_LONGEST_LABEL = 40
"""Number of characters after which the label of a row continues on the next line."""

# Tick labels of a logarithmic axis that may span less than a decade, from many to few.
_TICKS = [
    [digit * 10.0**power for power in (-4, -3, -2, -1, 0) for digit in digits]
    for digits in (
        *((1, 1.5, 2, 3, 4, 5, 6, 7, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 3, 5, 7)),
        *((1, 2, 5), (1, 3), (1,)),
    )
]
# Smallest distance of two labels that do not touch, as a share of the axis.
_APART = 0.15

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "svg.fonttype": "none",
    # TrueType, because some journals refuse PDF files with the default, Type 3.
    "pdf.fonttype": 42,
    # Names may contain a dollar sign.
    "text.parse_math": False,
    # The same figure gives the same file.
    "svg.hashsalt": "sah",
    "savefig.bbox": "tight",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of the report inside the with block."""
    with mpl.rc_context(_STYLE):
        yield


def share_axis(axis: Any, shares: Sequence[float]) -> None:
    """Make the x axis logarithmic with round shares in (0, 1] as labels."""
    low, high = 0.8 * min(shares), 1.25 * max(shares)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(mpl.ticker.FixedLocator(share_ticks(low, high)))
    axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def share_ticks(low: float, high: float) -> list[float]:
    """Return round shares between two limits whose labels do not touch on a logarithmic axis."""
    width = math.log(high / low)
    for ticks in _TICKS:
        inside = [tick for tick in ticks if low <= tick <= high]
        gaps = (math.log(after / before) / width for before, after in pairwise(inside))
        if all(gap >= _APART for gap in gaps):
            break
    return inside


def dense_line(axis: Any, point: ScoredPoint) -> None:
    """Draw the score of dense attention across the panel, with its interval as a band."""
    axis.axhline(100 * point.score, color=DENSE_COLOUR, linestyle="--", linewidth=1)
    interval = point.estimate.interval
    if interval is not None:
        axis.axhspan(
            100 * interval.low, 100 * interval.high, color=DENSE_COLOUR, alpha=0.07, linewidth=0
        )


HOVER = "hover:"
"""Prefix of an SVG id that `svg` turns into a hover title."""


def describe(artist: Any, point: ScoredPoint) -> None:
    """Attach a hover title and a link to the experiment to the marker of a point."""
    density = "" if point.density is None else f", density {point.density:.4g}"
    rows = "" if point.rows_read is None else f", rows read {point.rows_read:.4g}"
    artist.set_gid(f"{HOVER}{point.name}: {100 * point.score:.1f}{density}{rows}")
    artist.set_url(f"#/experiment/{point.results[0].fingerprint}")


def dot(
    axis: Any, cost: float | None, point: ScoredPoint, look: Look, *, hollow: bool = False
) -> None:
    """Draw a point with the interval of its score."""
    score, interval = 100 * point.score, point.estimate.interval
    error = None
    if interval is not None:
        error = [[score - 100 * interval.low], [100 * interval.high - score]]
    # A faded interval does not hide the points of other methods.
    drawn = axis.errorbar(
        cost,
        score,
        _not_negative(error),
        fmt=look.marker,
        color=look.colour,
        markersize=5,
        linewidth=0.8,
        capsize=1.5,
        markerfacecolor="white" if hollow else look.colour,
        markeredgecolor=look.colour if hollow else "white",
        markeredgewidth=1.0 if hollow else 0.5,
        ecolor=(look.colour, 0.5),
    )
    describe(drawn.lines[0], point)


def connect(axis: Any, line: Sequence[tuple[float, ScoredPoint]], look: Look) -> None:
    """Connect the settings of one method."""
    ordered = sorted(line, key=lambda item: item[0])
    axis.plot(
        [cost for cost, _ in ordered],
        [100 * point.score for _, point in ordered],
        color=look.colour,
        linestyle=look.line,
        linewidth=1,
        alpha=0.7,
    )


def steps(axis: Any, front: Sequence[tuple[float, float]]) -> None:
    """Draw a Pareto front of (cost, score): the best score at each cost or less."""
    costs, scores = zip(*front, strict=True)
    axis.step(
        costs,
        [100 * score for score in scores],
        where="post",
        color="#bbbbbb",
        linewidth=4,
        alpha=0.6,
        solid_capstyle="round",
        zorder=1,
    )


ASIDE = 0.06
"""Largest horizontal shift of a point, as a share of its density or rows read."""


def side_by_side(names: Sequence[str]) -> dict[str, float]:
    """Return a factor near 1 per method, so that points of equal cost do not overlap."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) == 1:
        return {distinct[0]: 1.0}
    last = len(distinct) - 1
    return {name: (1 + ASIDE) ** (2 * number / last - 1) for number, name in enumerate(distinct)}


def _not_negative(error: Any) -> Any:
    """Clip error bars at 0, because rounding can make them slightly negative."""
    return None if error is None else np.maximum(error, 0.0)


def wrap(text: str, characters: int) -> str:
    """Break a text into lines at spaces, and a longer word after a sign such as _ or /."""
    words = []
    for word in text.split():
        while len(word) > characters:
            end = 1 + max(word.rfind(sign, 0, characters) for sign in "_/-+")
            end = end or characters
            words.append(word[:end])
            word = word[end:]
        words.append(word)
    return textwrap.fill(" ".join(words), characters, break_on_hyphens=False)


def grid(
    titles: Sequence[str],
    columns: int = _COLUMNS,
    panel: tuple[float, float] = PANEL,
    labels: Sequence[Sequence[str]] = (),
) -> tuple[Figure, list[Any]]:
    """Create a figure with one titled panel per title, and return it with their axes.

    Args:
        titles: titles of the panels; long ones are wrapped.
        columns: largest number of panels side by side.
        panel: size of a panel in inches, without the labels of rows; one panel alone is larger.
        labels: labels of the rows of every panel, from top to bottom. The panels become as wide as
            the labels need, and as high where labels take several lines.
    """
    count = len(titles)
    width, height = panel if count > 1 else (1.6 * panel[0], 1.3 * panel[1])
    rows = [[wrap(label, _LONGEST_LABEL) for label in one] for one in labels]
    lines = [line for one in rows for label in one for line in label.split("\n")]
    beside = _CHARACTER * max(map(len, lines), default=0)
    columns = max(1, min(columns, count, int(_WIDEST // (width + beside))))
    wrapped = [
        "\n".join(wrap(line, int((width - 0.5) / _BOLD_CHARACTER)) for line in title.split("\n"))
        for title in titles
    ]
    above = _LINE * max(title.count("\n") for title in wrapped)
    # Rows are equally high.
    below = _LINE * max((len(one) * max(x.count("\n") for x in one) for one in rows), default=0)
    height_rows = -(-count // columns)
    figure = Figure(
        figsize=((width + beside) * columns, (height + above + below) * height_rows),
        layout="constrained",
    )
    axes = figure.subplots(height_rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.remove()
    for axis, title in zip(axes, wrapped, strict=False):
        axis.set_title(title)
    for axis, one in zip(axes, rows, strict=False):
        axis.set_yticks(range(len(one)), one)
        axis.set_ylim(len(one) - 0.5, -0.5)
    return figure, axes[:count]


def colour_bar(figure: Figure, image: Any, axes: Sequence[Any], label: str) -> None:
    """Add one colour bar at the right of all panels, at most four inches high."""
    shrink = min(0.8, 4 / figure.get_figheight())
    figure.colorbar(image, ax=list(axes), label=label, shrink=shrink, anchor=(0.0, 1.0))


def legend(
    figure: Figure,
    axes: Sequence[Any],
    look: dict[str, Look],
    names: Sequence[str],
    *,
    lines: bool = False,
) -> None:
    """Add one legend below all panels."""
    handles = [
        axes[0].plot(
            [],
            [],
            color=look[name].colour,
            marker="" if lines or name == "dense" else look[name].marker,
            linestyle="--" if name == "dense" else look[name].line,
            linewidth=1,
            label=name,
        )[0]
        for name in dict.fromkeys(names)
    ]
    width = 0.6 + _CHARACTER * max(map(len, names))
    columns = max(1, min(5, len(handles), int(figure.get_figwidth() // width)))
    figure.set_figheight(figure.get_figheight() + _LINE * (-(-len(handles) // columns) - 1))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        title="settings of a method: light to dark" if lines else None,
    )
