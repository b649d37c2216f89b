"""The objective of a search by trial, and the importance of its parameters."""

import logging
from collections.abc import Sequence
from itertools import accumulate

import matplotlib as mpl
from matplotlib.figure import Figure

from sah.report.figures.axes import HOVER, ROWS_WIDTH, grid
from sah.report.reading.differences import short_names
from sah.report.statistics.importance import importances
from sah.results.search_record import Search, Trial
from sah.terminal import one_line

logger = logging.getLogger(__name__)

_TRIAL, _BEST, _FAILED = "#0072B2", "#D55E00", "#000000"


def history(searches: Sequence[Search]) -> Figure | None:
    """Draw the objective of every trial and the best one so far, one panel per search."""
    if not searches:
        return None
    figure, axes = grid([_title(search) for search in searches], columns=2)
    for axis, search in zip(axes, searches, strict=True):
        done = [
            (number, trial, trial.value)
            for number, trial in enumerate(search.trials)
            if trial.value is not None
        ]
        for number, trial, value in done:
            (marker,) = axis.plot(number, value, "o", color=_TRIAL, markersize=4, zorder=3)
            marker.set_gid(f"{HOVER}{value:.4g}: {_settings(trial)}")
        best = max if search.direction == "maximize" else min
        bests = list(accumulate((value for _, _, value in done), best))
        numbers = [number for number, _, _ in done]
        # The line ends at the last trial.
        ends = [len(search.trials) - 1] if done else []
        axis.step([*numbers, *ends], [*bests, *bests[-1:]], color=_BEST, where="post")
        failed = [number for number, trial in enumerate(search.trials) if trial.value is None]
        axis.plot(
            *(failed, [0.03] * len(failed), "x"),
            transform=axis.get_xaxis_transform(),
            color=_FAILED,
        )
        axis.set(xlabel="trial", ylabel="objective")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    handles = [
        axes[0].plot([], [], "o", color=_TRIAL, markersize=4, label="trial")[0],
        axes[0].plot([], [], color=_BEST, label="best so far")[0],
    ]
    if any(trial.value is None for search in searches for trial in search.trials):
        handles.append(axes[0].plot([], [], "x", color=_FAILED, label="without a result")[0])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def importance(searches: Sequence[Search]) -> Figure | None:
    """Draw the share of the objective's variance that each parameter explains, as bars."""
    found = [(search, shares) for search in searches if (shares := _shares(search))]
    if not found:
        return None
    rows = [sorted(shares.items(), key=lambda item: -item[1]) for _, shares in found]
    tallest = max(map(len, rows))
    figure, axes = grid(
        [_title(search) for search, _ in found],
        panel=(ROWS_WIDTH, 1.0 + 0.22 * tallest),
        labels=[[name for name, _ in one] for one in rows],
    )
    for axis, one in zip(axes, rows, strict=True):
        axis.barh(range(len(one)), [share for _, share in one], height=0.6, color=_TRIAL)
        for height, (_, share) in enumerate(one):
            axis.text(share + 0.02, height, f"{share:.2f}", va="center")
        axis.set(xlabel="adjusted R² lost without it", xlim=(0, 1.15))
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    return figure


def _shares(search: Search) -> dict[str, float] | None:
    # An experiment that was asked for several times is one observation.
    trials = [
        trial
        for trial in {one.directory: one for one in search.trials}.values()
        if trial.value is not None
    ]
    if not trials:
        return None
    keys = [key for key in trials[0].parameters if all(key in one.parameters for one in trials)]
    names = short_names(keys)
    given = {one_line(names[key]): [trial.parameters[key] for trial in trials] for key in keys}
    shares = importances(given, [trial.value for trial in trials if trial.value is not None])
    if shares is None:
        logger.warning(
            "no importance of the parameters of %s: its %d different trials are too few, or their "
            "objectives are equal",
            *(one_line(search.name), len(trials)),
        )
    return shares


def _title(search: Search) -> str:
    return f"{one_line(search.name)}\n{search.direction} {one_line(search.objective)}"


def _settings(trial: Trial) -> str:
    names = short_names(list(trial.parameters))
    return one_line(" ".join(f"{names[key]}={value}" for key, value in trial.parameters.items()))
