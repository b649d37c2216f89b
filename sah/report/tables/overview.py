"""The table of `sah report`: one row an experiment, or one a group of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sah.report.reading.answers import read_scored
from sah.report.reading.collect import Run
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import in_order, natural
from sah.report.reading.select import resolve_key, shown_value, value_of
from sah.report.statistics.estimates import (
    Estimate,
    group_estimate,
    index_bytes,
    mean_of,
    peak_memory,
    run_estimate,
    tokens_per_second,
)
from sah.report.tables.table import Cell, Column, Table, label, number

_LEGEND = (
    "score: × 100; CI: its 95 % interval (Wilson, clustered by context); error: output error "
    "against dense; tok/s: decoding, question included; GB: peak memory; –: not measured."
)


def run_table(runs: Sequence[Run], *, wide: bool = False) -> Table:
    """One row a run; what all have in common is the caption, what differs a column.

    Args:
        runs: at least one.
        wide: every differing setting in a column of its own, nothing in the caption, and
            fingerprints, for programs; else the settings of methods are gathered in one.
    """
    keys = differing_keys(runs)
    of_method = [key for key in keys if key.startswith(METHOD)]
    gathered = not wide and len(of_method) > 1
    names = ["model", "benchmark", "subset", "protocol"]
    common = [] if wide else [name for name in names if _agree(runs, name)]
    shown = [
        *(name for name in names if name not in common),
        *(key for key in keys if key not in of_method),
        "attention",
        *([] if gathered else of_method),
        *(["fingerprint"] if wide else []),
    ]
    runs = in_order(runs)
    settings = dict(zip(runs, method_settings(runs, of_method), strict=True))
    headers = short_names(shown)
    columns = [Column(name=key, header=headers[key], numeric=False) for key in shown]
    rows = [[_setting(value_of(run, key)) for key in shown] for run in runs]
    if gathered:
        columns.append(Column(name="settings", header="settings", numeric=False))
        rows = [[*row, label(settings[run])] for row, run in zip(rows, runs, strict=True)]
    measured = _measured_columns(runs, wide)
    return Table(
        columns=[*columns, *measured],
        rows=[
            [*row, *_measured([run], run_estimate(run), measured, wide)]
            for row, run in zip(rows, runs, strict=True)
        ],
        caption=_caption(runs[0], common),
        notes=[_LEGEND, *warnings(runs)],
    )


def _agree(runs: Sequence[Run], name: str) -> bool:
    return len({value_of(run, name) for run in runs}) == 1


def _caption(run: Run, common: Sequence[str]) -> str:
    """What goes without saying is not said."""
    values = [(name, str(value_of(run, name))) for name in common]
    unsaid = (("protocol", "default"), ("subset", "all"))
    return "  ".join(value for name, value in values if (name, value) not in unsaid)


def _setting(value: Any) -> Cell:
    return Cell(text="" if value is None else shown_value(value), value=value)


def group_table(runs: Sequence[Run], by: Sequence[str], *, wide: bool = False) -> Table:
    """One row for all runs that agree in the keys `by`: means over these runs.

    Raises:
        ConfigurationError: if no run has such a key.
    """
    keys = [resolve_key(name, runs) for name in by]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        values = tuple(shown_value(value_of(run, key)) for key in keys)
        groups.setdefault(values, []).append(run)
    headers = short_names(keys)
    columns = [Column(name=key, header=headers[key], numeric=False) for key in keys]
    measured = _measured_columns(runs, wide)
    rows = [
        [
            *(label(value) for value in values),
            Cell(text=str(len(group)), value=len(group)),
            *_measured(group, group_estimate(read_scored(group)), measured, wide),
        ]
        for values, group in sorted(groups.items(), key=lambda item: list(map(natural, item[0])))
    ]
    notes = [f"Means over the runs of a row. {_LEGEND}", *warnings(runs)]
    columns.append(Column(name="runs", header="runs"))
    return Table(columns=[*columns, *measured], rows=rows, notes=notes)


def warnings(runs: Sequence[Run]) -> list[str]:
    """What makes the numbers of these runs hard to compare."""
    found = []
    versions = Counter(_code_version(run) for run in runs)
    if len(versions) > 1:
        found.append(f"WARNING: {len(versions)} versions of the code: {_counted(versions)}.")
    libraries = Counter(_libraries(run) for run in runs)
    if len(libraries) > 1:
        found.append(f"WARNING: {len(libraries)} sets of libraries: {_counted(libraries)}.")
    protocols = Counter(run.protocol for run in runs)
    if len(protocols) > 1:
        found.append(
            f"WARNING: {len(protocols)} protocols, whose scores mean different things: "
            f"{_counted(protocols)}."
        )
    dirty = sum(bool(run.results.get("provenance", {}).get("git_dirty")) for run in runs)
    if dirty:
        found.append(f"WARNING: {dirty} of {len(runs)} runs used code with uncommitted changes.")
    mixed = sum(bool(run.results.get("provenance", {}).get("answered_by")) for run in runs)
    if mixed:
        found.append(
            f"WARNING: {mixed} of {len(runs)} runs were answered in part by another code, device "
            "or dtype; provenance.answered_by in their results.json says by which."
        )
    cut = sum(bool(run.results.get("truncated")) for run in runs)
    if cut:
        found.append(f"WARNING: in {cut} of {len(runs)} runs contexts were cut to fit the model.")
    return found


# What only some protocols and methods measure: a column where any of the runs has it.
_SOMETIMES = {
    Column(name="kl", header="KL", importance=6): ("dense_agreement", "kl"),
    Column(name="top_agreement", header="agree", importance=6): (
        "dense_agreement",
        "top_agreement",
    ),
}


def _measured_columns(runs: Sequence[Run], wide: bool) -> list[Column]:
    limits = [Column(name="score_low", header="low"), Column(name="score_high", header="high")]
    index = Column(name="index_bytes_per_key_and_layer", header="index")
    return [
        Column(name="score", header="score"),
        *(limits if wide else [Column(name="score_interval", header="95 % CI", importance=9)]),
        Column(name="density", header="density", importance=8),
        Column(name="output_error", header="error", importance=7),
        Column(name="recall", header="recall", importance=4),
        *(column for column, path in _SOMETIMES.items() if mean_of(runs, *path) is not None),
        Column(name="tokens_per_second", header="tok/s", importance=3),
        Column(name="peak_memory_bytes", header="GB", importance=2),
        *([index] if wide else []),
        Column(name="n", header="n", importance=5),
    ]


def _measured(
    runs: Sequence[Run], estimate: Estimate, columns: Sequence[Column], wide: bool
) -> list[Cell]:
    """The cells of a row, for the columns that end a table."""
    low = number(estimate.interval.low if estimate.interval else None, 1, 100)
    high = number(estimate.interval.high if estimate.interval else None, 1, 100)
    both = "–" if estimate.interval is None else f"{low.text}–{high.text}"
    return [
        number(estimate.score, 1, 100),
        *([low, high] if wide else [Cell(text=both)]),
        number(mean_of(runs, "density")),
        number(mean_of(runs, "output_error")),
        number(mean_of(runs, "recall")),
        *(number(mean_of(runs, *path)) for column, path in _SOMETIMES.items() if column in columns),
        number(tokens_per_second(runs), 1),
        number(peak_memory(runs), 1, 1e-9),
        *([number(index_bytes(runs), 1)] if wide else []),
        Cell(text=str(estimate.n), value=estimate.n),
    ]


def _code_version(run: Run) -> str:
    commit = run.results.get("provenance", {}).get("git_commit")
    return str(commit)[:8] if commit else "unknown"


def _libraries(run: Run) -> str:
    versions = run.results.get("provenance", {}).get("versions", {})
    return " ".join(f"{name} {versions.get(name, '?')}" for name in ("torch", "transformers"))


def _counted(values: "Counter[str]") -> str:
    shown = ", ".join(f"{value} ({count} runs)" for value, count in values.most_common(4))
    return shown if len(values) <= 4 else f"{shown}, and {len(values) - 4} more"
