"""What the HTML report shows, as JSON: an overview, and details by run and by example set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sah.errors import ConfigurationError
from sah.report.figures.series import OUTPUT_ERROR, RECALL, Point, points, profiles, task_estimates
from sah.report.figures.style import PLOTLY_MARKERS, looks
from sah.report.reading.answers import read_asked, read_scored
from sah.report.reading.collect import Run, measured
from sah.report.reading.differences import METHOD, differing_keys, short_names
from sah.report.reading.order import in_order
from sah.report.reading.select import shown_value, value_of
from sah.report.statistics.comparison import Comparison, Settings, compare
from sah.report.statistics.estimates import run_estimate, tokens_per_second
from sah.report.statistics.pairing import match

# A file of 200 runs with 100 examples each stays below 15 MB, whatever the examples are.
_CONTEXT_CHARACTERS = 5_000_000
_LONGEST_CONTEXT = 3000
_LONGEST_ANSWER = 1000

# Parts of the configuration that do not change what is asked.
_ANSWERING = (METHOD, "metric_logging.", "protocol.", "generation.")


@dataclass(frozen=True, kw_only=True)
class PageData:
    """JSON values."""

    overview: dict[str, Any]
    """Runs with their numbers, columns, looks: what is there when the page opens."""
    details: dict[str, Any]
    """`run-<id>` and `asked-<id>`: what is unpacked when a run is looked at."""


def page_data(runs: Sequence[Run]) -> PageData:
    """Collect everything that the page shows."""
    runs = in_order(runs)
    found = points(runs)
    look = looks([run.attention for run in runs])
    point_of = {run: point for point in found for run in point.runs}
    number_of = {run: number for number, run in enumerate(runs)}
    compared = _comparisons(runs)
    asked_of = {run: _asked_id(run) for run in runs}
    keys = [key for key in differing_keys(runs) if not key.startswith(METHOD)]
    headers = short_names(keys)
    overview = {
        "runs": [
            _overview(run, point_of[run], compared.get(run), number_of, asked_of, keys)
            for run in runs
        ],
        "keys": [headers[key] for key in keys],
        "looks": {
            name: {"colour": one.colour, "marker": PLOTLY_MARKERS[one.marker], "line": one.line}
            for name, one in look.items()
        },
    }
    details: dict[str, Any] = {}
    scored = read_scored(runs).partition_by("run", as_dict=True)
    for number, run in enumerate(runs):
        details[f"run-{number}"] = _details(run, scored.get((number,)))
    details.update(_asked(runs, asked_of))
    return PageData(overview=overview, details=details)


def _overview(
    run: Run,
    point: Point,
    comparison: Comparison | None,
    number_of: Mapping[Run, int],
    asked_of: Mapping[Run, str],
    keys: Sequence[str],
) -> dict[str, Any]:
    estimate = run_estimate(run)
    profile = profiles([run]) if run.attention != "dense" else {}
    row = {
        "model": run.model,
        "attention": run.attention,
        "settings": point.settings,
        "benchmark": f"{run.benchmark} {run.subset}".removesuffix(" all"),
        "protocol": run.protocol,
        "panel": point.panel,
        "keys": [shown_value(value_of(run, key)) for key in keys],
        "fingerprint": run.fingerprint,
        "asked": asked_of[run],
        "score": estimate.score,
        "low": estimate.interval.low if estimate.interval else None,
        "high": estimate.interval.high if estimate.interval else None,
        "n": estimate.n,
        "density": measured(run, "density"),
        "error": measured(run, "output_error"),
        "recall": measured(run, "recall"),
        "speed": tokens_per_second([run]),
        "memory": measured(run, "provenance", "peak_memory_bytes"),
        "bytes": point.bytes_per_step,
        "tasks": {
            task: [one.score, one.interval and one.interval.low, one.interval and one.interval.high]
            for task, one in task_estimates(run).items()
        },
        "layers": {
            name: _rounded(profile[metric].by_layer)
            for name, metric in (("error", OUTPUT_ERROR), ("recall", RECALL))
            if metric in profile
        },
        "positions": _rounded(profile[OUTPUT_ERROR].by_position) if OUTPUT_ERROR in profile else [],
    }
    if comparison is not None:
        interval = comparison.interval
        row["baseline"] = number_of[comparison.match.baselines[0]]
        row["difference"] = comparison.difference
        row["differenceLow"] = interval.low if interval else None
        row["differenceHigh"] = interval.high if interval else None
        row["gained"], row["lost"] = comparison.gained, comparison.lost
        row["p"] = comparison.adjusted_p_value
        row["verdict"] = "alarm" if comparison.suspicious else comparison.verdict
        row["uninformative"] = comparison.uninformative
    return row


def _comparisons(runs: Sequence[Run]) -> dict[Run, Comparison]:
    """Every run against its dense one; none if there is no dense run."""
    try:
        matches, _ = match(runs, {"attention": ["dense"]})
    except ConfigurationError:
        # No dense run, or several: the page shows runs alone.
        return {}
    compared, _ = compare(matches, Settings())
    return {comparison.match.arms[0]: comparison for comparison in compared}


def _details(run: Run, scored: pl.DataFrame | None) -> dict[str, Any]:
    examples = []
    if scored is not None:
        columns = ("example_id", "task", "score", "text", "input_hash", "finish_reason", "density")
        for row in scored.select(columns).iter_rows():
            identifier, task, score, text, digest, reason, density = row
            answer = text or ""
            if len(answer) > _LONGEST_ANSWER:
                answer = f"{answer[:_LONGEST_ANSWER]} […]"
            examples.append([identifier, task, score, answer, (digest or "")[:8], reason, density])
    provenance = run.results.get("provenance", {})
    return {
        "directory": str(run.directory),
        "config": {key: shown_value(value) for key, value in run.config.items()},
        "provenance": {
            key: ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, Mapping)
            else shown_value(value)
            for key, value in provenance.items()
        },
        "timing": dict(run.results.get("timing", {})),
        "examples": examples,
    }


def _asked(runs: Sequence[Run], asked_of: Mapping[Run, str]) -> dict[str, Any]:
    """What was asked, once for all runs that were asked the same."""
    firsts: dict[str, Run] = {}
    for run in runs:
        firsts.setdefault(asked_of[run], run)
    frame = read_asked(list(firsts.values()))
    allowed = min(_LONGEST_CONTEXT, _CONTEXT_CHARACTERS // max(1, len(frame)))
    found: dict[str, Any] = {f"asked-{name}": {} for name in firsts}
    names = list(firsts)
    columns = ("run", "example_id", "context", "question", "answer_prefix", "references")
    for number, identifier, context, question, prefix, references in frame.select(
        columns
    ).iter_rows():
        found[f"asked-{names[number]}"][identifier] = [
            _shortened(context or "", allowed),
            question,
            prefix,
            [_shortened(reference, _LONGEST_ANSWER) for reference in references or []],
        ]
    return found


def _asked_id(run: Run) -> str:
    settings = [
        f"{key}={value}"
        for key, value in sorted(run.config.items())
        if not key.startswith(_ANSWERING)
    ]
    return hashlib.blake2b("\n".join(settings).encode(), digest_size=6).hexdigest()


def _shortened(text: str, allowed: int) -> str:
    if len(text) <= allowed:
        return text
    half = allowed // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"


def _rounded(values: Mapping[float, float]) -> list[list[float]]:
    return [[key, float(f"{value:.4g}")] for key, value in values.items()]
