"""The distribution of answer lengths."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure

from sah.report.figures.axes import ROWS_WIDTH, grid
from sah.report.figures.series import Point, panels
from sah.report.figures.style import Look
from sah.report.reading.answers import read_scored


def answer_lengths(found: Sequence[Point], look: dict[str, Look]) -> Figure | None:
    """Draw the lengths of all answers as boxes, one row per method and one panel per benchmark."""
    lengths = {id(point): _lengths(point) for point in found}
    grouped = panels([point for point in found if lengths[id(point)]])
    if not grouped:
        return None
    tallest = max(len(group) for group in grouped.values())
    figure, axes = grid(
        list(grouped),
        panel=(ROWS_WIDTH, 0.6 + 0.2 * max(tallest, 3)),
        labels=[[point.name for point in group] for group in grouped.values()],
    )
    for axis, group in zip(axes, grouped.values(), strict=True):
        for height, point in enumerate(group):
            colour = look[point.attention].colour
            line = {"color": colour, "linewidth": 1}
            axis.bxp(
                boxplot_stats(lengths[id(point)], whis=(0, 100)),
                positions=[height],
                widths=0.5,
                manage_ticks=False,
                orientation="horizontal",
                showmeans=True,
                boxprops=line,
                whiskerprops=line,
                capprops=line,
                medianprops=line,
                meanprops={
                    "marker": look[point.attention].marker,
                    "markerfacecolor": colour,
                    "markeredgecolor": colour,
                    "markersize": 4,
                },
            )
        axis.set_xlabel("tokens of an answer")
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    return figure


def _lengths(point: Point) -> list[int]:
    scored = read_scored(point.results)
    # A continuation is given, so that its length says nothing about the method.
    generated = scored.filter(scored["finish_reason"].ne_missing("given"))
    return generated["new_tokens"].drop_nulls().to_list()
