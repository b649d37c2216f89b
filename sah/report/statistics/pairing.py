"""Matching results with their baselines and pairing their answers."""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import polars as pl

from sah.errors import ConfigurationError
from sah.report.reading.answers import read_scored
from sah.report.reading.select import Conditions, resolve_key, select, shown_value
from sah.results.schema import Result

# The group whose settings each name stands for.
_GROUP_OF_NAME = {
    "model": "model",
    "attention": "sparse_attention",
    "benchmark": "benchmark",
    "subset": "benchmark",
    "protocol": "protocol",
}

# What is compared of two answers.
_PAIRED = ("score", "new_tokens", "keys_read", "density", "finish_reason")

Signature = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """Results of one method and their baselines, one for each."""

    results: Sequence[Result]
    """One result, or several that differ only in the pooled keys."""
    baselines: Sequence[Result]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of answers to identical inputs."""

    frame: pl.DataFrame
    """One row per scored pair: example_id, task and context; score, new_tokens, keys_read, density
    and finish_reason of both sides, with the ending `_baseline` of the baseline."""
    paired: int
    """Number of pairs, including those without scores."""
    different_inputs: int
    """Number of examples that both sides answered with different input tokens; not compared."""
    different_references: int = 0
    """Number of those with the same input whose references differ; not compared."""
    different_limits: int = 0
    """Number of those whose token limit differs, though it is configured alike; not compared."""
    unanswered: int
    """Number of answers whose example the other side lacks."""


def match(
    results: Sequence[Result], baseline: Conditions, pool: Sequence[str] = ()
) -> tuple[list[Match], list[tuple[Result, str]]]:
    """Find the baseline of every result: equal in everything but the keys of the conditions.

    With `attention=dense` that is everything but the settings of the attention, and of metric
    logging, which changes no answer.

    Args:
        results: those to compare and their baselines.
        baseline: conditions that only the baselines meet.
        pool: keys such as `seed`; results that differ only there become one match.

    Returns:
        The matches, and the results without a baseline, each with the reason.

    Raises:
        ConfigurationError: if there is no baseline, or two for the same result.
    """
    baselines = select(results, baseline)
    if not baselines:
        raise ConfigurationError(
            f"no result matches the baseline {_spelled(baseline)}; run it, or choose another "
            "--baseline"
        )
    keys = [resolve_key(name, results) for name in baseline]
    ignored = {f"{_GROUP_OF_NAME.get(key, key).partition('.')[0]}." for key in keys}
    by_signature: dict[Signature, Result] = {}
    for result in baselines:
        other = by_signature.setdefault(_signature(result, ignored), result)
        if other is not result:
            raise ConfigurationError(
                f"two results match the baseline {_spelled(baseline)}: {other.directory} and "
                f"{result.directory}; choose one, for example with "
                "--baseline attention=sparse,fraction=0.2"
            )
    pooled_keys = {resolve_key(name, results) for name in pool}
    matched: dict[Signature, list[tuple[Result, Result]]] = defaultdict(list)
    unmatched = []
    chosen = set(baselines)
    for result in results:
        if result in chosen:
            continue
        found = by_signature.get(_signature(result, ignored))
        if found is None:
            unmatched.append((result, _nearest(result, baselines, ignored)))
        else:
            matched[_signature(result, {"metric_logging."}, pooled_keys)].append((result, found))
    matches = [
        Match(results=[result for result, _ in group], baselines=[found for _, found in group])
        for group in matched.values()
    ]
    return matches, unmatched


def read_pairs(matches: Sequence[Match]) -> list[Pairs]:
    """Pair the answers of each match by example id, and hashes of input tokens and references.

    Earlier versions wrote neither a hash of the references nor the limit: those count as equal.
    """
    results = list(dict.fromkeys(r for one in matches for r in (*one.results, *one.baselines)))
    number = {result: position for position, result in enumerate(results)}
    scored = read_scored(results)
    linked = [
        (position, number[result], number[baseline], _limit(result) == _limit(baseline))
        for position, one in enumerate(matches)
        for result, baseline in zip(one.results, one.baselines, strict=True)
    ]
    schema = {
        "match": pl.Int32,
        "result": pl.Int32,
        "baseline": pl.Int32,
        "same_limit": pl.Boolean,
    }
    links = pl.DataFrame(linked, schema=schema, orient="row")
    answers = links.join(scored, on="result", maintain_order="left_right")
    baselines = scored.select(
        "example_id",
        baseline="result",
        input_hash_baseline="input_hash",
        references_hash_baseline="references_hash",
        token_limit_baseline="token_limit",
        **{f"{name}_baseline": name for name in _PAIRED},
    )
    common = answers.join(baselines, on=["baseline", "example_id"], maintain_order="left")
    same_inputs = common.filter(pl.col("input_hash") == pl.col("input_hash_baseline"))
    same_references = same_inputs.filter(_known_equal("references_hash"))
    same = same_references.filter(_known_equal("token_limit") | ~pl.col("same_limit"))
    # Without public references there are no scores to compare.
    scored_pairs = same.drop_nulls(["score", "score_baseline"])
    answered = _counts(answers)
    of_baseline = _counts(links.join(baselines, on="baseline"))
    shared, paired = _counts(common), _counts(same)
    inputs, references = _counts(same_inputs), _counts(same_references)
    frames = scored_pairs.partition_by("match", as_dict=True)
    return [
        Pairs(
            frame=frames.get((position,), same.clear()),
            paired=paired.get(position, 0),
            different_inputs=shared.get(position, 0) - inputs.get(position, 0),
            different_references=inputs.get(position, 0) - references.get(position, 0),
            different_limits=references.get(position, 0) - paired.get(position, 0),
            unanswered=answered.get(position, 0)
            + of_baseline.get(position, 0)
            - 2 * shared.get(position, 0),
        )
        for position in range(len(matches))
    ]


def _limit(result: Result) -> str:
    """Return the configured limit of answers, which may be what is compared."""
    return shown_value(result.settings.get("generation.max_new_tokens"))


def _known_equal(column: str) -> pl.Expr:
    """Whether both sides are equal, or one of them is not known."""
    return (pl.col(column) == pl.col(f"{column}_baseline")).fill_null(value=True)


def _counts(frame: pl.DataFrame) -> dict[int, int]:
    """Count the rows of each match."""
    return dict(frame.group_by("match").len().iter_rows())


def _signature(
    result: Result, ignored: AbstractSet[str], pooled: AbstractSet[str] = frozenset()
) -> Signature:
    """Return the settings of a result without some groups and keys."""
    prefixes = (*ignored, "metric_logging.")
    return tuple(
        sorted(
            (key, shown_value(value))
            for key, value in result.settings.items()
            if not key.startswith(prefixes) and f"{key}." not in prefixes and key not in pooled
        )
    )


def _nearest(result: Result, baselines: Sequence[Result], ignored: set[str]) -> str:
    """Explain how a result differs from the most similar baseline."""
    own = dict(_signature(result, ignored))

    def differences(other: Result) -> list[str]:
        theirs = dict(_signature(other, ignored))
        names = {**own, **theirs}
        return [key for key in names if own.get(key) != theirs.get(key)]

    closest = min(baselines, key=lambda other: len(differences(other)))
    theirs = dict(_signature(closest, ignored))
    shown = [
        f"{key}={own.get(key, 'null')}, not {theirs.get(key, 'null')}"
        for key in differences(closest)[:3]
    ]
    return f"the nearest baseline differs in {'; '.join(shown)}"


def _spelled(conditions: Conditions) -> str:
    return ",".join(f"{key}={','.join(values)}" for key, values in conditions.items())
