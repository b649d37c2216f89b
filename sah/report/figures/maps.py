"""Heat maps: metrics by layer, and scores by depth and length of a context."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sah.report.figures.axes import colour_bar, grid
from sah.report.figures.needles import NeedleMap
from sah.report.figures.series import Point, Profile, panels
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL

LAYER_METRICS: Mapping[str, str] = {
    OUTPUT_ERROR: "output error",
    RECALL: "recall",
    DENSITY: "density",
}
"""Micro metrics that have a map by layer, with their names."""


def layers(
    found: Sequence[Point], known: dict[str, dict[str, Profile]], metric: str
) -> Figure | None:
    """Draw a heat map of methods by layers, one panel per benchmark."""
    grouped = panels([p for p in found if metric in known.get(p.name + p.panel, {})])
    if not grouped:
        return None
    tallest = max(len(group) for group in grouped.values())
    figure, axes = grid(
        list(grouped),
        columns=2,
        panel=(3.2, 0.8 + 0.22 * max(tallest, 3)),
        labels=[[point.name for point in group] for group in grouped.values()],
    )
    everything = [
        value
        for group in grouped.values()
        for point in group
        for value in known[point.name + point.panel][metric].by_layer.values()
    ]
    lowest = min(everything) if metric == RECALL else 0.0
    image = None
    for axis, group in zip(axes, grouped.values(), strict=True):
        rows = [known[point.name + point.panel][metric].by_layer for point in group]
        deepest = max(max(row) for row in rows)
        values = np.array([[row.get(n, np.nan) for n in range(int(deepest) + 1)] for row in rows])
        image = axis.imshow(
            values, aspect="auto", cmap="cividis", vmin=lowest, vmax=max(everything)
        )
        axis.set_xlabel("layer")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axis.grid(False)
    colour_bar(figure, image, axes, LAYER_METRICS[metric])
    return figure


def needles(found: Sequence[NeedleMap]) -> Figure | None:
    """Draw a heat map of depths by lengths, one panel per method and task."""
    if not found:
        return None
    widest = max(len(one.lengths) for one in found)
    tallest = max(len(one.depths) for one in found)
    longest = max(len(line) for one in found for line in one.title.split("\n"))
    width = max(1.2 + 0.35 * widest, min(0.08 * longest + 0.5, 3.0))
    columns = max(1, int(10 // width))
    panel = (width, 1.1 + 0.19 * tallest)
    figure, axes = grid([one.title for one in found], columns, panel)
    image = None
    for axis, one in zip(axes, found, strict=True):
        values = [
            [100 * one.scores.get((depth, length), np.nan) for length in one.lengths]
            for depth in one.depths
        ]
        # A cell without answers stays white, or as dark as the page.
        image = axis.imshow(np.array(values), aspect="auto", cmap="cividis", vmin=0, vmax=100)
        axis.set_xticks(range(len(one.lengths)), one.lengths, rotation=45, ha="right")
        axis.set_yticks(range(len(one.depths)), one.depths)
        axis.set(xlabel="context (tokens)", ylabel="depth")
        axis.grid(False)
    colour_bar(figure, image, axes, "score × 100")
    return figure
