"""The data of the HTML report, as JSON: an overview, details by result, and examples."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import yaml

from sah.errors import ConfigurationError
from sah.report.html.head_data import head_data
from sah.report.reading.answers import read_examples, read_scored
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import in_order
from sah.report.reading.select import shown_value, value_of
from sah.report.statistics.comparison import Comparison, Settings, compare
from sah.report.statistics.estimates import result_estimate, tokens_per_second
from sah.report.statistics.pairing import match
from sah.results.disturbance import disturbances
from sah.results.schema import Result
from sah.results.store import OVERRIDES

# 200 results with 100 examples each stay below 15 MB, whatever the examples are.
_CONTEXT_CHARACTERS = 5_000_000
_LONGEST_CONTEXT = 3000
_LONGEST_ANSWER = 1000

# Settings that do not change the examples.
_ANSWERING = (METHOD, "metric_logging.", "protocol.", "generation.")


@dataclass(frozen=True, kw_only=True)
class PageData:
    """JSON values."""

    overview: dict[str, Any]
    """Results with their numbers, and the columns: available when the page opens."""
    details: dict[str, Any]
    """`result-<number>`, `examples-<id>` and, where heads were recorded, `heads-<number>`: unpacked
    when a result is opened."""


def page_data(results: Sequence[Result]) -> PageData:
    """Collect everything that the page shows."""
    results = in_order(results)
    keys = differing_keys(results)
    of_method = [key for key in keys if key.startswith(METHOD)]
    others = [key for key in keys if key not in of_method]
    settings = method_settings(results, of_method)
    compared = _comparisons(results)
    number_of = {result: number for number, result in enumerate(results)}
    examples_of = {result: _examples_id(result) for result in results}
    headers = short_names(others)
    overview = {
        "results": [
            {
                **_overview(result),
                **_difference(compared.get(result), number_of),
                "settings": text,
                "keys": [shown_value(value_of(result, key)) for key in others],
                "examples": examples_of[result],
            }
            for result, text in zip(results, settings, strict=True)
        ],
        "keys": [headers[key] for key in others],
        "filters": _filters(results, keys),
    }
    details: dict[str, Any] = {}
    scored = read_scored(results).partition_by("result", as_dict=True)
    for number, result in enumerate(results):
        details[f"result-{number}"] = _details(result, scored.get((number,)))
    details.update((f"heads-{number}", maps) for number, maps in head_data(results))
    details.update(_examples(results, examples_of))
    return PageData(overview=overview, details=details)


def _filters(results: Sequence[Result], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the settings that differ, with their values by result; None where it has none."""
    names = short_names(keys)
    return [
        {"name": names[key], "values": [_known(result.settings.get(key)) for result in results]}
        for key in keys
    ]


def _known(value: Any) -> str | None:
    return None if value is None else shown_value(value)


def _overview(result: Result) -> dict[str, Any]:
    estimate = result_estimate(result)
    return {
        "model": result.model,
        "attention": result.attention,
        "benchmark": f"{result.benchmark} {result.subset_name}".removesuffix(" all"),
        "protocol": result.protocol,
        "fingerprint": result.fingerprint,
        "score": estimate.score,
        "low": estimate.interval.low if estimate.interval else None,
        "high": estimate.interval.high if estimate.interval else None,
        "n": estimate.n,
        "density": result.density,
        "rows": result.rows_read,
        "resident": result.resident,
        "prefill": result.prefill_density,
        "error": result.output_error,
        "recall": result.recall,
        "tokens": result.answer_tokens,
        "keysRead": result.keys_read,
        "speed": tokens_per_second([result]),
        "disturbed": ", ".join(disturbances(result)),
        "memory": result.provenance.peak_memory_bytes,
    }


def _difference(comparison: Comparison | None, number_of: Mapping[Result, int]) -> dict[str, Any]:
    """Return the comparison with dense; empty if there is none."""
    if comparison is None:
        return {}
    return {
        "baseline": number_of[comparison.match.baselines[0]],
        "difference": comparison.difference,
        "gained": comparison.gained,
        "lost": comparison.lost,
        "p": comparison.adjusted_p_value,
        "verdict": "alarm" if comparison.suspicious else comparison.verdict,
        "uninformative": comparison.uninformative,
        "longer": comparison.costs.is_longer,
    }


def _comparisons(results: Sequence[Result]) -> dict[Result, Comparison]:
    """Compare every result with its dense baseline."""
    try:
        matches, _ = match(results, {"attention": ["dense"]})
    except ConfigurationError:
        # Without a dense result, or with several for one, the page shows no differences.
        return {}
    compared, _ = compare(matches, Settings())
    return {comparison.match.results[0]: comparison for comparison in compared}


def _details(result: Result, scored: pl.DataFrame | None) -> dict[str, Any]:
    answers = []
    if scored is not None:
        columns = ("example_id", "task", "score", "text", "input_hash", "finish_reason", "density")
        for row in scored.select(columns).iter_rows():
            identifier, task, score, text, digest, reason, density = row
            answer = text or ""
            if len(answer) > _LONGEST_ANSWER:
                answer = f"{answer[:_LONGEST_ANSWER]} […]"
            answers.append([identifier, task, score, answer, (digest or "")[:8], reason, density])
    return {
        "directory": str(result.directory),
        "command": _command(result),
        "config": {key: shown_value(value) for key, value in result.settings.items()},
        "provenance": {
            key: _shown_provenance(value) for key, value in vars(result.provenance).items()
        },
        "timing": asdict(result.timing),
        "answers": answers,
    }


def _command(result: Result) -> str | None:
    """Return the command that computes a result; None if the overrides were not stored."""
    path = result.directory / OVERRIDES
    if not path.is_file():
        return None
    # A damaged file would not be worth losing the page.
    try:
        typed = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        return None
    if not isinstance(typed, list) or not all(isinstance(one, str) for one in typed):
        return None
    return shlex.join(["python", "run.py", *typed])


def _shown_provenance(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown_provenance(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_shown_provenance(item) for item in value)
    return shown_value(value)


def _examples(results: Sequence[Result], examples_of: Mapping[Result, str]) -> dict[str, Any]:
    """Return each set of examples once, also if many results answered it."""
    firsts: dict[str, Result] = {}
    for result in results:
        firsts.setdefault(examples_of[result], result)
    frame = read_examples(list(firsts.values()))
    allowed = min(_LONGEST_CONTEXT, _CONTEXT_CHARACTERS // max(1, len(frame)))
    found: dict[str, Any] = {f"examples-{name}": {} for name in firsts}
    names = list(firsts)
    columns = ("result", "example_id", "context", "question", "answer_prefix", "references")
    for number, identifier, context, question, prefix, references in frame.select(
        columns
    ).iter_rows():
        found[f"examples-{names[number]}"][identifier] = [
            _shortened(context or "", allowed, next(iter(references or ()), "")),
            question,
            prefix,
            [_shortened(reference, _LONGEST_ANSWER) for reference in references or []],
        ]
    return found


def _examples_id(result: Result) -> str:
    """Hash the settings that determine the examples."""
    settings = [
        f"{key}={value}"
        for key, value in sorted(result.settings.items())
        if not key.startswith(_ANSWERING)
    ]
    return hashlib.blake2b("\n".join(settings).encode(), digest_size=6).hexdigest()


def _shortened(text: str, allowed: int, kept: str = "") -> str:
    """Shorten a text to its ends, and to what surrounds the first mention of `kept`."""
    if len(text) <= allowed:
        return text
    found = text.find(kept) if kept else -1
    if found < 0:
        half = allowed // 2
        places = [(0, half), (len(text) - half, len(text))]
    else:
        third = allowed // 3
        # What is kept may itself be long.
        start = max(0, found - third // 2)
        places = [(0, third), (start, start + third), (len(text) - third, len(text))]
    pieces, written = [], 0
    for start, end in places:
        start = max(start, written)
        if start > written:
            pieces.append(f"\n[… {start - written:,} characters …]\n")
        if end > start:
            pieces.append(text[start:end])
            written = end
    return "".join(pieces)
