"""The table of `sah report`: one row per result, or one per group of results."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sah.report.reading.answers import read_scored
from sah.report.reading.caveats import caveats
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import in_order, natural
from sah.report.reading.select import resolve_key, shown_value, value_of
from sah.report.statistics.estimates import (
    Estimate,
    differs_from_one,
    group_estimate,
    index_bytes,
    known_mean,
    peak_memory,
    result_estimate,
    tokens_per_second,
)
from sah.report.tables.table import Cell, Column, Table, compact, label, number
from sah.results.disturbance import disturbances
from sah.results.schema import DenseAgreement, Result

# Mean length in tokens from which length and keys read come before output error and speed.
_LONG_ANSWER = 64


def result_table(results: Sequence[Result], *, wide: bool = False) -> Table:
    """Return a table with one row per result.

    Names that all results share go into the caption; settings that differ become columns.

    Args:
        results: at least one.
        wide: for programs: every differing setting in its own column, no caption, and
            fingerprints. Otherwise the settings of methods share a column.
    """
    keys = differing_keys(results)
    of_method = [key for key in keys if key.startswith(METHOD)]
    gathered = not wide and len(of_method) > 1
    names = ["model", "benchmark", "subset", "protocol"]
    common = [] if wide else [name for name in names if _agree(results, name)]
    shown = [
        *(name for name in names if name not in common),
        *(key for key in keys if key not in of_method),
        "attention",
        *([] if gathered else of_method),
        *(["fingerprint"] if wide else []),
    ]
    results = in_order(results)
    headers = short_names(shown)
    columns = [Column(name=key, header=headers[key], numeric=False) for key in shown]
    rows = [[_setting(value_of(result, key)) for key in shown] for result in results]
    if gathered:
        columns.append(Column(name="settings", header="settings", numeric=False))
        settings = method_settings(results, of_method)
        rows = [[*row, label(text)] for row, text in zip(rows, settings, strict=True)]
    measured = _measured_columns(results, wide)
    return Table(
        columns=[*columns, *measured],
        rows=[
            [*row, *_measured([result], result_estimate(result), measured, wide)]
            for row, result in zip(rows, results, strict=True)
        ],
        caption=_caption(results[0], common),
        notes=[*_speed_note(results), *caveats(results)],
    )


def _agree(results: Sequence[Result], name: str) -> bool:
    return len({value_of(result, name) for result in results}) == 1


def _caption(result: Result, common: Sequence[str]) -> str:
    """Return the names that all results share, without the defaults."""
    values = [(name, str(value_of(result, name))) for name in common]
    defaults = (("protocol", "default"), ("subset", "all"))
    return "  ".join(value for name, value in values if (name, value) not in defaults)


def _setting(value: Any) -> Cell:
    return Cell(text="" if value is None else shown_value(value), value=value)


def group_table(results: Sequence[Result], by: Sequence[str], *, wide: bool = False) -> Table:
    """Return a table with one row of means per group of results with equal values of `by`.

    Raises:
        ConfigurationError: if no result has such a key.
    """
    keys = [resolve_key(name, results) for name in by]
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        values = tuple(shown_value(value_of(result, key)) for key in keys)
        groups.setdefault(values, []).append(result)
    headers = short_names(keys)
    columns = [Column(name=key, header=headers[key], numeric=False) for key in keys]
    measured = _measured_columns(results, wide)
    rows = [
        [
            *(label(value) for value in values),
            Cell(text=str(len(group)), value=len(group)),
            *_measured(group, group_estimate(read_scored(group)), measured, wide),
        ]
        for values, group in sorted(groups.items(), key=lambda item: list(map(natural, item[0])))
    ]
    notes = ["Means over the results of a row.", *_speed_note(results), *caveats(results)]
    columns.append(Column(name="results", header="results"))
    return Table(columns=[*columns, *measured], rows=rows, notes=notes)


# Columns of teacher forcing, shown if any of the results has it.
_AGREEMENT: dict[Column, Callable[[DenseAgreement], float]] = {
    Column(
        name="kl", header="KL", importance=6, meaning="divergence from the dense model, in nats"
    ): lambda agreement: agreement.kl,
    Column(
        name="top_agreement",
        header="agree",
        importance=6,
        meaning="tokens for which the most likely one is the dense model's",
    ): lambda agreement: agreement.top_agreement,
}


# Shown if a method differs from dense attention in them.
_SHARES = (
    Column(
        name="resident",
        header="resident",
        importance=6,
        meaning="bytes held of a context, indexes included, as a share of its dense cache",
    ),
    Column(
        name="prefill_density",
        header="prefill",
        importance=6,
        meaning="visible keys that the context's own queries read",
    ),
)


# How much of an experiment output error and recall were measured on.
_SAMPLED = ("sampled_examples", "sampled_of_examples", "sampled_queries", "sampled_of_queries")


def _measured_columns(results: Sequence[Result], wide: bool) -> list[Column]:
    limits = [Column(name="score_low", header="low"), Column(name="score_high", header="high")]
    index = Column(name="index_bytes_per_key_and_layer", header="index")
    interval = Column(
        name="score_interval",
        header="95 % CI",
        importance=9,
        meaning="its interval (Clopper-Pearson, by context)",
    )
    # What a short answer reads follows from its density.
    longest = max((result.answer_tokens or 0 for result in results), default=0)
    importance = 8 if longest >= _LONG_ANSWER else 1

    def column(name: str, header: str, importance: int, meaning: str) -> Column:
        return Column(name=name, header=header, importance=importance, meaning=meaning)

    means = [
        column("density", "density", 8, "keys that a query head selects"),
        column("rows_read", "rows", 6, "key-value rows that any head of a group selects"),
        *(one for one in _SHARES if wide or differs_from_one(results, one.name)),
        column("output_error", "error", 7, "output error against dense"),
        column("recall", "recall", 4, "softmax mass on the selected keys"),
        column("answer_tokens", "tokens", importance, "length of an answer"),
        column("keys_read", "keys read", importance, "by all its queries, in a layer and head"),
    ]
    return [
        Column(name="score", header="score", meaning="× 100"),
        *(limits if wide else [interval]),
        *(shown for one in means for shown in _with_stderr(one, wide)),
        *((Column(name=name, header=name) for name in _SAMPLED) if wide else ()),
        *(_AGREEMENT if any(result.dense_agreement for result in results) else ()),
        column("tokens_per_second", "tok/s", 3, "decoding, question included"),
        *([Column(name="speed_disturbed", header="disturbed", numeric=False)] if wide else []),
        column("peak_memory_bytes", "GB", 2, "peak memory"),
        *([index] if wide else []),
        column("n", "n", 5, "answers"),
    ]


def _with_stderr(column: Column, wide: bool) -> list[Column]:
    """Return a column, followed by that of its standard error in a table for programs."""
    if not wide:
        return [column]
    return [column, Column(name=f"{column.name}_stderr", header=f"{column.header} stderr")]


def _means(
    results: Sequence[Result],
    name: str,
    wide: bool,
    cell: Callable[[float | None], Cell] = number,
) -> list[Cell]:
    """Return the cells of `_with_stderr`; means of several results have no standard error."""
    mean = cell(known_mean(getattr(result, name) for result in results))
    if not wide:
        return [mean]
    return [mean, number(getattr(results[0], f"{name}_stderr") if len(results) == 1 else None)]


def _disturbed(results: Sequence[Result]) -> str:
    return " ".join(dict.fromkeys(one for result in results for one in disturbances(result)))


def _speed(results: Sequence[Result], wide: bool) -> list[Cell]:
    """Return the cell of the decoding speed, marked if it is hard to compare."""
    speed, disturbed = number(tokens_per_second(results), 1), _disturbed(results)
    if wide:
        return [speed, label(disturbed)]
    marked = disturbed and speed.value is not None
    return [replace(speed, text=f"{speed.text}*") if marked else speed]


def _speed_note(results: Sequence[Result]) -> list[str]:
    disturbed = _disturbed(results)
    if not disturbed:
        return []
    return [f"*: speed of a run that was {disturbed.replace(' ', ' or ')} (see docs/numbers.md)."]


def _sampled(results: Sequence[Result]) -> list[Cell]:
    """Return the counts of `_SAMPLED`, over all results."""
    known = [result.sampled for result in results if result.sampled is not None]
    names = ("examples", "of_examples", "queries", "of_queries")
    counts = [sum(getattr(one, name) for one in known) if known else None for name in names]
    return [number(count, 0) for count in counts]


def _measured(
    results: Sequence[Result], estimate: Estimate, columns: Sequence[Column], wide: bool
) -> list[Cell]:
    """Return the cells of `_measured_columns` for one row."""
    low = number(estimate.interval.low if estimate.interval else None, 1, 100)
    high = number(estimate.interval.high if estimate.interval else None, 1, 100)
    both = "–" if estimate.interval is None else f"{low.text}–{high.text}"
    agreements = [one.dense_agreement for one in results if one.dense_agreement is not None]
    return [
        number(estimate.score, 1, 100),
        *([low, high] if wide else [Cell(text=both)]),
        *_means(results, "density", wide),
        *_means(results, "rows_read", wide),
        *(
            cell
            for column in _SHARES
            if column in columns
            for cell in _means(results, column.name, wide)
        ),
        *_means(results, "output_error", wide),
        *_means(results, "recall", wide),
        *_means(results, "answer_tokens", wide, compact),
        *_means(results, "keys_read", wide, compact),
        *(_sampled(results) if wide else ()),
        *(
            number(known_mean(map(value, agreements)))
            for column, value in _AGREEMENT.items()
            if column in columns
        ),
        *_speed(results, wide),
        number(peak_memory(results), 1, 1e-9),
        *([number(index_bytes(results), 1)] if wide else []),
        Cell(text=str(estimate.n), value=estimate.n),
    ]
