"""The figures of a report: readable in print, in grey and with colour blindness."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from sah.report.figures.axes import (
    ASIDE,
    ROWS_WIDTH,
    WIDE_PANEL,
    connect,
    dense_line,
    describe,
    dot,
    grid,
    legend,
    share_axis,
    side_by_side,
    steps,
)
from sah.report.figures.distributions import answer_lengths
from sah.report.figures.maps import LAYER_METRICS, layers, needles
from sah.report.figures.needles import needle_maps
from sah.report.figures.searches import history, importance
from sah.report.figures.series import (
    Point,
    Profile,
    ScoredPoint,
    panels,
    pareto_front,
    profiles,
    scored_points,
    task_points,
)
from sah.report.figures.style import Look, looks
from sah.results.schema import OUTPUT_ERROR, Result
from sah.results.search_record import searches_with

CostAxis = Literal[
    "density", "rows_read", "resident", "prefill_density", "keys_read", "answer_tokens"
]
_AXIS_NAMES: dict[CostAxis, str] = {
    "density": "density",
    "rows_read": "rows read",
    "resident": "resident bytes",
    "prefill_density": "prefill density",
    "keys_read": "keys read",
    "answer_tokens": "answer length",
}
_SHARES = ("density", "rows_read", "resident", "prefill_density")
_VISIBLE = 0.0005
"""Smallest difference of two shares that three decimals show."""
_FEW = 6
"""Number of methods from which a panel is larger."""
_HOLLOW = "hollow: measured on a crowded machine or over several starts"
_HOLLOW_LABEL = "hollow: measured on a crowded machine\nor over several starts"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its title and a remark on how to read it."""

    name: str
    """Name of its file, without suffix."""
    title: str
    remark: str = ""
    figure: Figure | None
    """None if the results have no data for it."""


def drawings(results: Sequence[Result], axis: CostAxis | None = None) -> Iterator[Drawing]:
    """Draw every figure; call inside `style`.

    Args:
        results: the results to show.
        axis: what the score is drawn against, in all and by task; None for every share that
            differs, and density by task.
    """
    found = scored_points(results)
    look = looks([point.attention for point in found])
    known = {
        point.name + point.panel: profiles(point.results)
        for point in found
        if point.attention != "dense"
    }
    for cost in [axis] if axis else _differing_shares(found):
        yield Drawing(
            name=f"score_{cost}",
            title=f"Score against {_AXIS_NAMES[cost]}",
            remark="Averages over seeds. Grey steps: the Pareto front. Dashed: dense attention.",
            figure=score_against(found, look, cost),
        )
    yield Drawing(
        name="score_seconds",
        title="Score against time",
        remark=f"Seconds per decoded token, question included. {_HOLLOW.capitalize()}.",
        figure=score_against(found, look, "seconds"),
    )
    yield Drawing(
        name="score_bytes",
        title="Score against keys and values read",
        remark="Rows read × prompt × bytes of a token, per decoded token.",
        figure=score_against(found, look, "bytes"),
    )
    yield Drawing(name="tasks", title="Score by task", figure=tasks(found, look, axis or "density"))
    yield Drawing(
        name="needles",
        title="Score by depth and length",
        remark="Depth of the expected answer in the context, from its beginning (top).",
        figure=needles(needle_maps(results)),
    )
    for metric, name in LAYER_METRICS.items():
        yield Drawing(
            name=f"{name.replace(' ', '_')}_layers",
            title=f"{name.capitalize()} by layer",
            figure=layers(found, known, metric),
        )
    yield Drawing(
        name="answer_lengths",
        title="Answer lengths",
        remark="Quartiles and range of the number of tokens; the point is the mean.",
        figure=answer_lengths(found, look),
    )
    yield Drawing(
        name="output_error_position",
        title="Output error by position in the answer",
        remark="Settings of a method from light to dark.",
        figure=positions(found, known, look),
    )
    searches = searches_with(result.directory for result in results)
    yield Drawing(
        name="search_history",
        title="Objective of a search by trial",
        remark="In the order in which the trials were asked for.",
        figure=history(searches),
    )
    yield Drawing(
        name="search_importance",
        title="Importance of the parameters of a search",
        remark="The adjusted R² that an additive model of the objective loses without a parameter.",
        figure=importance(searches),
    )


def _differing_shares(found: Sequence[Point]) -> list[CostAxis]:
    """Return density, and the shares that differ from it, or from 1, in any point."""

    def differs(value: float | None, base: float | None) -> bool:
        return value is not None and base is not None and abs(value - base) >= _VISIBLE

    shares: list[CostAxis] = ["density"]
    if any(differs(point.rows_read, point.density) for point in found):
        shares.append("rows_read")
    if any(differs(point.resident, 1.0) for point in found):
        shares.append("resident")
    if any(differs(point.prefill_density, 1.0) for point in found):
        shares.append("prefill_density")
    return shares


_AXES: dict[str, tuple[str, Callable[[Point], float | None]]] = {
    "density": ("density", lambda point: point.density),
    "rows_read": ("key-value rows read", lambda point: point.rows_read),
    "resident": ("bytes held / dense cache", lambda point: point.resident),
    "prefill_density": ("prefill density", lambda point: point.prefill_density),
    "keys_read": ("keys read per answer", lambda point: point.keys_read),
    "answer_tokens": ("tokens per answer", lambda point: point.answer_tokens),
    "seconds": ("time per decoded token", lambda point: point.seconds_per_token),
    "bytes": ("keys and values read per token", lambda point: point.bytes_per_step),
}
_UNITS = {"seconds": "s", "bytes": "B", "keys_read": ""}
"""Costs whose labels have a prefix such as k or m, and their units."""


def score_against(found: Sequence[ScoredPoint], look: dict[str, Look], cost: str) -> Figure | None:
    """Draw score against a cost, one panel per benchmark, with 95 % intervals and Pareto front."""
    label, value = _AXES[cost]
    is_share = cost in _SHARES
    known = panels([point for point in found if value(point) is not None])
    # A panel with dense alone compares nothing.
    grouped = {
        title: group
        for title, group in known.items()
        if any(point.attention != "dense" for point in group)
    }
    if not grouped:
        return None
    if cost == "seconds" and any(one.is_disturbed for group in grouped.values() for one in group):
        label = f"{label}\n({_HOLLOW_LABEL})"
    methods = {point.attention for group in grouped.values() for point in group}
    is_crowded = len(methods) > _FEW
    figure, axes = grid(list(grouped), *((2, WIDE_PANEL) if is_crowded else ()))
    for axis, group in zip(axes, grouped.values(), strict=True):
        sparse = [point for point in group if point.attention != "dense"]
        for point in group:
            if point.attention == "dense":
                dense_line(axis, point)
                if not is_share:
                    hollow = cost == "seconds" and point.is_disturbed
                    dot(axis, value(point), point, look["dense"], hollow=hollow)
        front = pareto_front([(value(p) or 0.0, p.score) for p in sparse])
        if len(front) > 1:
            steps(axis, front)
        # Methods often have equal densities: shift them apart.
        aside = side_by_side([p.attention for p in sparse]) if is_share else {}
        for attention in dict.fromkeys(point.attention for point in sparse):
            line = [
                (aside.get(attention, 1.0) * (value(point) or 0.0), point)
                for point in sparse
                if point.attention == attention
            ]
            connect(axis, line, look[attention])
            for at, point in line:
                hollow = cost == "seconds" and point.is_disturbed
                dot(axis, at, point, look[attention], hollow=hollow)
        if is_share:
            share_axis(axis, [value(point) or 1.0 for point in sparse])
        else:
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
            if cost in _UNITS:
                unit = _UNITS[cost]
                formatter = mpl.ticker.EngFormatter(unit, sep=" " if unit else "")
                axis.xaxis.set_major_formatter(formatter)
        shifted = f"\n(points shifted by up to {ASIDE:.0%})" if len(aside) > 1 else ""
        axis.set(xlabel=label + shifted, ylabel="score × 100", ylim=(-4, 104))
    legend(figure, axes, look, [point.attention for point in found])
    return figure


def positions(
    found: Sequence[Point], known: dict[str, dict[str, Profile]], look: dict[str, Look]
) -> Figure | None:
    """Draw output error against the position in the answer, one panel per benchmark."""

    def line(point: Point) -> dict[float, float]:
        profile = known.get(point.name + point.panel, {}).get(OUTPUT_ERROR)
        return profile.by_position if profile else {}

    grouped = panels([point for point in found if len(line(point)) > 1])
    if not grouped:
        return None
    figure, axes = grid(list(grouped))
    for axis, group in zip(axes, grouped.values(), strict=True):
        for attention in dict.fromkeys(point.attention for point in group):
            same = [point for point in group if point.attention == attention]
            for number, point in enumerate(same):
                one = look[attention]
                # Settings of one method go from light to dark.
                strength = 1.0 if len(same) == 1 else 0.35 + 0.65 * number / (len(same) - 1)
                means = line(point)
                axis.plot(
                    list(means),
                    list(means.values()),
                    color=one.colour,
                    alpha=strength,
                    linestyle=one.line,
                    linewidth=1.2,
                )
        axis.set(xlabel="position in the answer (tokens)", ylabel="output error")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    legend(figure, axes, look, [p.attention for p in found if p.attention != "dense"], lines=True)
    return figure


def tasks(
    found: Sequence[Point], look: dict[str, Look], axis: CostAxis = "density"
) -> Figure | None:
    """Draw one panel per task: scores against a cost, or rows if methods have one setting each."""
    of_tasks = task_points(found)
    methods = {(point.attention, point.settings) for point in of_tasks}
    if len(methods) > len({attention for attention, _ in methods}):
        return score_against(of_tasks, look, axis)
    return rows_of_methods(of_tasks, look)


def rows_of_methods(found: Sequence[ScoredPoint], look: dict[str, Look]) -> Figure | None:
    """Draw scores with intervals, one row per method."""
    grouped = panels(found)
    if not grouped:
        return None
    tallest = max(len(group) for group in grouped.values())
    figure, axes = grid(
        list(grouped),
        panel=(ROWS_WIDTH, 0.6 + 0.2 * tallest),
        labels=[[point.name for point in group] for group in grouped.values()],
    )
    for axis, group in zip(axes, grouped.values(), strict=True):
        for height, point in enumerate(group):
            one, interval = look[point.attention], point.estimate.interval
            if interval is not None:
                axis.plot(
                    [100 * interval.low, 100 * interval.high],
                    [height, height],
                    color=one.colour,
                    linewidth=1,
                )
            (marker,) = axis.plot(
                100 * point.score, height, one.marker, color=one.colour, markersize=4.5
            )
            describe(marker, point)
        axis.set(xlabel="score × 100", xlim=(-4, 104))
    return figure
