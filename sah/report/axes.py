"""What the figures have in common: style, grids of panels, points with intervals, legends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sah.report.series import ScoredPoint
from sah.report.style import DENSE_COLOUR, Look

PANEL = (3.3, 2.6)
"""Inches of one panel."""
_COLUMNS = 3

# Round numbers on a logarithmic axis that may span less than a decade.
_DENSITIES = [
    *(0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0),
]

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
    # The same figure is the same file.
    "svg.hashsalt": "sah",
    "savefig.bbox": "tight",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the report inside the with block."""
    with mpl.rc_context(_STYLE):
        yield


def density_axis(axis: Any, densities: Sequence[float]) -> None:
    """A logarithmic axis of densities with round numbers."""
    axis.set_xscale("log")
    axis.set_xlim(0.85 * min(densities), 1.18 * max(densities))
    axis.xaxis.set_major_locator(mpl.ticker.FixedLocator(_DENSITIES))
    axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def dense_line(axis: Any, point: ScoredPoint) -> None:
    """The score of dense attention across the panel, its interval as a band."""
    axis.axhline(100 * point.score, color=DENSE_COLOUR, linestyle="--", linewidth=1)
    interval = point.estimate.interval
    if interval is not None:
        axis.axhspan(
            100 * interval.low, 100 * interval.high, color=DENSE_COLOUR, alpha=0.07, linewidth=0
        )


def dot(axis: Any, cost: float | None, point: ScoredPoint, look: Look) -> None:
    """One point with the interval of its score."""
    score, interval = 100 * point.score, point.estimate.interval
    error = None
    if interval is not None:
        error = [[score - 100 * interval.low], [100 * interval.high - score]]
    axis.errorbar(
        cost,
        score,
        _not_negative(error),
        fmt=look.marker,
        color=look.colour,
        markersize=5,
        linewidth=0.8,
        capsize=1.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
    )


def _not_negative(error: Any) -> Any:
    """Matplotlib takes None for no error bar, and rounding may make one slightly negative."""
    return None if error is None else np.maximum(error, 0.0)


def grid(
    count: int, columns: int = _COLUMNS, panel: tuple[float, float] = PANEL
) -> tuple[Figure, list[Any]]:
    """A figure of so many panels, and their axes."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def legend(
    figure: Figure,
    axes: Sequence[Any],
    look: dict[str, Look],
    names: Sequence[str],
    *,
    lines: bool = False,
) -> None:
    """One legend for all panels, below them."""
    handles = [
        axes[0].plot(
            [],
            [],
            color=look[name].colour,
            marker="" if lines or name == "dense" else look[name].marker,
            linestyle=look[name].line if lines else "--" if name == "dense" else "",
            label=name,
        )[0]
        for name in dict.fromkeys(names)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(5, len(handles)),
        title="settings of a method: light to dark" if lines else None,
    )
