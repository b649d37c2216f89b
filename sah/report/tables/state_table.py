"""The table of `sah status`: what differs between experiments, progress, and failures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from sah.errors import DamagedResults
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import natural
from sah.report.reading.select import Described, shown_value, value_of
from sah.report.reading.unfinished import Unfinished
from sah.report.tables.table import Cell, Column, Table, label
from sah.results.schema import Result
from sah.results.state import ExperimentState

STATES = ("failed", "dead", "interrupted", "running", "waiting", "done")
"""In the order of the table: what needs somebody comes first."""
_MOST_REASONS = 5
_LEFT = 2
"""Position of the column of the time left."""
_NARROWEST_NOTE = 16
_NAMES = ("model", "benchmark", "subset", "protocol")


@dataclass(frozen=True, kw_only=True)
class FoundExperiment:
    """An experiment below one of the folders."""

    state: ExperimentState
    result: Result | DamagedResults | None
    """None if it is not complete."""
    described: Described
    """The result, or what config.yaml or its sweep says."""
    vanished: Sequence[str] = ()
    """What the result read and is no longer on this disk, in sentences."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far some experiments are."""

    share: float | None
    """Share of all examples that are answered; those of experiments that have not begun count as
    many as the mean of the others. None while no number is known."""
    seconds_left: float | None
    """For what runs and waits, at the rate of what runs; None if nothing has answered yet."""


def differing_values(experiments: Sequence[FoundExperiment]) -> list[dict[str, str]]:
    """Return, for each experiment, the names and settings that tell it from the others.

    An experiment that has not begun is known by its names and its overrides.
    """
    described = [one.described for one in experiments]
    begun = [one for one in described if not _is_planned(one)]
    keys = differing_keys(begun)
    changed = dict.fromkeys(key for one in described if _is_planned(one) for key in one.settings)
    keys += [key for key in changed if key not in keys and _differs(key, described)]
    names = [name for name in _NAMES if _differs(name, described)]
    of_method = [key for key in keys if key.startswith(METHOD)]
    gathers = len(of_method) > 1
    others = [key for key in keys if key not in of_method]
    shown = [*names, *others, "attention", *([] if gathers else of_method)]
    headers = short_names(shown)
    gathered = dict(zip(map(id, begun), method_settings(begun, of_method), strict=True))
    rows = []
    for one in described:
        row = {headers[key]: _text(one, key) for key in shown}
        if gathers:
            given = [f"{key.removeprefix(METHOD)}={_text(one, key)}" for key in of_method]
            planned = " ".join(text for text in given if not text.endswith("="))
            row["settings"] = gathered.get(id(one), planned)
        rows.append(row)
    return rows


def progress(experiments: Sequence[FoundExperiment], now: float) -> Progress:
    """Estimate how much is done, and when what runs and waits will be."""
    states = [one.state for one in experiments]
    sizes = [state.answered if state.state == "done" else state.examples for state in states]
    known = [size for size in sizes if size is not None]
    if not any(known):
        return Progress(share=None, seconds_left=None)
    mean = sum(known) / len(known)
    total = answered = left = 0.0
    for state, size in zip(states, sizes, strict=True):
        total += mean if size is None else size
        answered += state.answered
        if state.state in ("running", "waiting"):
            left += max(0.0, (mean if size is None else size) - state.answered)
    rates = [rate for state in states if (rate := state.rate(now)) is not None]
    return Progress(
        share=min(1.0, answered / total), seconds_left=left / sum(rates) if rates else None
    )


def seconds_left(state: ExperimentState, now: float) -> float | None:
    """Return the time that an experiment still needs at its rate so far; None if unknown."""
    rate = state.rate(now)
    if rate is None or state.examples is None:
        return None
    return max(0, state.examples - state.answered) / rate


def state_table(experiments: Sequence[FoundExperiment], now: float, width: int) -> Table:
    """Return a table with one row per experiment, those that need somebody first.

    Args:
        experiments: at least one.
        now: seconds since the epoch.
        width: of the terminal; notes are cut to fit, since reasons are shown whole elsewhere.
    """
    values = differing_values(experiments)
    headers = list(values[0])
    columns = [
        Column(name="state", header="state", numeric=False),
        Column(name="examples", header="examples"),
        Column(name="left", header="left"),
        *(Column(name=header, header=header, numeric=False) for header in headers),
        Column(name="note", header="note", numeric=False),
    ]
    paired = list(zip(experiments, values, strict=True))
    paired.sort(key=lambda one: (STATES.index(one[0].state.state), *map(natural, one[1].values())))
    rows = []
    for one, row in paired:
        state, left = one.state, seconds_left(one.state, now)
        rows.append(
            [
                Cell(text=state.state, style="alarm" if state.state in ("failed", "dead") else ""),
                label(_examples(state)),
                label("" if left is None else duration(left)),
                *(label(row[header]) for header in headers),
                label(_note(one, now)),
            ]
        )
    # Known of running experiments only.
    kept = [n for n, one in enumerate(columns) if n != _LEFT or any(row[n].text for row in rows)]
    columns, rows = [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]
    room = width - sum(
        2 + max(cell_len(text) for text in (column.header, *(row[n].text for row in rows)))
        for n, column in enumerate(columns[:-1])
    )
    rows = [[*row[:-1], label(_cut(row[-1].text, max(_NARROWEST_NOTE, room)))] for row in rows]
    common = [name for name in _NAMES if not _differs(name, [one.described for one in experiments])]
    caption = [(name, _text(experiments[0].described, name)) for name in common]
    defaults = (("protocol", "default"), ("subset", "all"))
    return Table(
        columns=columns,
        rows=rows,
        caption="  ".join(value for name, value in caption if (name, value) not in defaults),
        notes=[f"{_label(row)}: {sentence}" for one, row in paired for sentence in one.vanished],
    )


def summary(experiments: Sequence[FoundExperiment], now: float) -> list[str]:
    """Return the counts, and a line with the share of answered examples and the time left."""
    counts = Counter[str](one.state.state for one in experiments)
    lines = [", ".join(f"{counts[name]} {name}" for name in reversed(STATES) if counts[name])]
    found = progress(experiments, now)
    if found.share is not None and counts["done"] < len(experiments):
        left = "" if found.seconds_left is None else f", about {duration(found.seconds_left)} left"
        lines.append(f"{100 * found.share:.0f} % of all examples answered{left}")
    return lines


def reasons(experiments: Sequence[FoundExperiment]) -> list[str]:
    """Return each reason of a failure with the file that has its details, at most five."""
    files: dict[str, list[str]] = {}
    for one in experiments:
        if one.state.state == "failed":
            path = one.state.directory / "error.json"
            files.setdefault(one.state.first_error_line, []).append(str(path))
    lines = []
    for reason, paths in list(files.items())[:_MOST_REASONS]:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines += [reason, f"  {paths[0]}{more}"]
    return lines


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _is_planned(one: Described) -> bool:
    return isinstance(one, Unfinished) and one.is_planned


def _differs(key: str, described: Sequence[Described]) -> bool:
    return len({_text(one, key) for one in described}) > 1


def _text(one: Described, key: str) -> str:
    value = value_of(one, key)
    return "" if value is None else shown_value(value)


def _label(row: dict[str, str]) -> str:
    return " ".join(filter(None, row.values()))


def _examples(state: ExperimentState) -> str:
    if state.state == "waiting":
        return ""
    if not state.examples:
        return f"{state.answered}"
    share = 100 * state.answered / state.examples
    return f"{state.answered}/{state.examples} {share:3.0f} %"


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _note(one: FoundExperiment, now: float) -> str:
    state, result = one.state, one.result
    if isinstance(result, DamagedResults):
        return "damaged; see the warning"
    if result is not None:
        return "" if result.score is None else f"score {result.score:.3f}"
    if state.state == "dead" and state.owner is not None:
        return f"its process has ended: {state.owner.name}"
    if state.owner is not None:
        return f"{state.owner.name}, {duration(max(0.0, now - state.owner.since))}"
    if state.state == "interrupted":
        return state.first_error_line.partition(": ")[2]
    return state.first_error_line
