"""Heat maps of micro metrics by layer and head."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sah.report.figures.draw import Drawing
from sah.report.figures.series import Point, scored_points
from sah.report.reading.heads import HEAD_METRICS, HEADS, HeadMap, has_heads, head_maps
from sah.results.schema import RECALL, Result

_WIDTH = 10.0
"""Width of the figure in inches that panels fill before they begin another row."""


def head_drawings(results: Sequence[Result]) -> Iterator[Drawing]:
    """Draw the metrics that were recorded per head; call inside `style`.

    They are for files only: a page has the maps of an experiment beside its answers.
    """
    if not any(map(has_heads, results)):
        return
    by_head = [(point, head_maps(point.results)) for point in scored_points(results)]
    for metric, name in HEAD_METRICS.items():
        if any(metric in maps for _, maps in by_head):
            yield Drawing(
                name=f"{name.replace(' ', '_')}_heads",
                title=f"{name.capitalize()} by layer and head",
                remark="Averages over seeds and the recorded queries.",
                figure=layers_by_heads(by_head, metric),
            )


def layers_by_heads(found: Sequence[tuple[Point, Mapping[str, HeadMap]]], metric: str) -> Figure:
    """Draw a heat map of layers by heads, one panel per method and benchmark.

    Args:
        found: points with their maps, by metric; at least one has the metric.
        metric: a key of HEAD_METRICS.
    """
    shown = [(point, maps[metric]) for point, maps in found if metric in maps]
    layers = max(len(one.values) for _, one in shown)
    heads = max(len(row) for _, one in shown for row in one.values)
    width = min(max(1.0 + 0.07 * heads, 2.2), _WIDTH / 2)
    height = 0.9 + min(max(0.07 * layers, 0.8), 4.5)
    columns = min(len(shown), int(_WIDTH // width))
    titles = [
        "\n".join(
            line
            for part in (point.name, point.panel)
            for line in textwrap.wrap(part, int(width / 0.085))
        )
        for point, _ in shown
    ]
    height += 0.14 * max(title.count("\n") for title in titles)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(width * columns + 0.8, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    known = [value for _, one in shown for value in one.known]
    lowest = min(known) if metric == RECALL else 0.0
    image = None
    for axis, title, (_, one) in zip(axes, titles, shown, strict=False):
        # A layer without records stays white, or as dark as the page.
        image = axis.imshow(
            np.array(one.values, dtype=float),
            aspect="auto",
            cmap="cividis",
            vmin=lowest,
            vmax=max(known),
        )
        axis.set(title=title, xlabel=HEADS[metric], ylabel="layer")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        axis.grid(False)
    for axis in axes[len(shown) :]:
        axis.remove()
    figure.colorbar(
        image,  # type: ignore[arg-type]
        ax=list(axes[: len(shown)]),
        label=HEAD_METRICS[metric],
        shrink=min(0.8, 4 / (height * rows)),
        anchor=(0.0, 1.0),
    )
    return figure
