"""Which run is whose baseline, and which of their answers may be compared."""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import polars as pl

from sah.errors import ConfigurationError
from sah.report.reading.answers import read_scored
from sah.report.reading.collect import Run
from sah.report.reading.select import Conditions, resolve_key, select, shown_value

# A setting of these groups is part of what the name stands for.
_GROUP_OF_NAME = {
    "model": "model",
    "attention": "sparse_attention",
    "benchmark": "benchmark",
    "subset": "benchmark",
    "protocol": "protocol",
}

Signature = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """Runs of one method and the runs they are compared with, one for one."""

    arms: Sequence[Run]
    """One run, or several that differ only in what is pooled."""
    baselines: Sequence[Run]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Answers to identical inputs."""

    frame: pl.DataFrame
    """A row a pair with scores: example_id, task, context, score and score_baseline."""
    paired: int
    """Pairs, those without scores included."""
    different_inputs: int
    """Answers whose example the baseline had too, with other input tokens: not compared."""
    unanswered: int
    """Answers of either side whose example the other one lacks."""


def match(
    runs: Sequence[Run], baseline: Conditions, pool: Sequence[str] = ()
) -> tuple[list[Match], list[tuple[Run, str]]]:
    """Find the baseline of every run: equal in all but what the conditions are about.

    With `attention=dense`, that is everything but the settings of the attention (and of
    metric logging, which changes no answer).

    Args:
        runs: the matrix.
        baseline: conditions that the baseline runs meet, and the others do not.
        pool: keys such as `seed`; runs that differ only there become one match.

    Returns:
        The matches, and the runs without a baseline, each with the reason.

    Raises:
        ConfigurationError: if no run is a baseline, or two are for the same run.
    """
    baselines = select(runs, baseline)
    if not baselines:
        raise ConfigurationError(
            f"no run is the baseline {_spelled(baseline)}; run it, or choose another --baseline"
        )
    keys = [resolve_key(name, runs) for name in baseline]
    ignored = {f"{_GROUP_OF_NAME.get(key, key).partition('.')[0]}." for key in keys}
    by_signature: dict[Signature, Run] = {}
    for run in baselines:
        other = by_signature.setdefault(_signature(run, ignored), run)
        if other is not run:
            raise ConfigurationError(
                f"two runs are the baseline {_spelled(baseline)} of the same runs: "
                f"{other.directory} and {run.directory}; say which, for example "
                "--baseline attention=sparse,fraction=0.2"
            )
    pooled_keys = {resolve_key(name, runs) for name in pool}
    matched: dict[Signature, list[tuple[Run, Run]]] = defaultdict(list)
    unmatched = []
    chosen = set(baselines)
    for run in runs:
        if run in chosen:
            continue
        found = by_signature.get(_signature(run, ignored))
        if found is None:
            unmatched.append((run, _nearest(run, baselines, ignored)))
        else:
            matched[_signature(run, {"metric_logging."}, pooled_keys)].append((run, found))
    matches = [
        Match(arms=[arm for arm, _ in group], baselines=[base for _, base in group])
        for group in matched.values()
    ]
    return matches, unmatched


def read_pairs(matches: Sequence[Match]) -> list[Pairs]:
    """Pair the answers of each match by example id and hash of the input tokens."""
    runs = list(dict.fromkeys(run for one in matches for run in (*one.arms, *one.baselines)))
    number = {run: position for position, run in enumerate(runs)}
    scored = read_scored(runs)
    linked = [
        (position, number[arm], number[baseline])
        for position, one in enumerate(matches)
        for arm, baseline in zip(one.arms, one.baselines, strict=True)
    ]
    schema = {"match": pl.Int32, "run": pl.Int32, "run_baseline": pl.Int32}
    links = pl.DataFrame(linked, schema=schema, orient="row")
    arms = links.join(scored, on="run", maintain_order="left_right")
    baselines = scored.select(
        "example_id",
        run_baseline="run",
        input_hash_baseline="input_hash",
        score_baseline="score",
    )
    common = arms.join(baselines, on=["run_baseline", "example_id"], maintain_order="left")
    same = common.filter(pl.col("input_hash") == pl.col("input_hash_baseline"))
    # Without public references there is nothing to compare.
    scored_pairs = same.drop_nulls(["score", "score_baseline"])
    answered = _numbers(arms)
    of_baseline = _numbers(links.join(baselines, on="run_baseline"))
    shared, paired = _numbers(common), _numbers(same)
    frames = scored_pairs.partition_by("match", as_dict=True)
    return [
        Pairs(
            frame=frames.get((position,), same.clear()),
            paired=paired.get(position, 0),
            different_inputs=shared.get(position, 0) - paired.get(position, 0),
            unanswered=answered.get(position, 0)
            + of_baseline.get(position, 0)
            - 2 * shared.get(position, 0),
        )
        for position in range(len(matches))
    ]


def _numbers(frame: pl.DataFrame) -> dict[int, int]:
    """Rows of each match."""
    return dict(frame.group_by("match").len().iter_rows())


def _signature(
    run: Run, ignored: AbstractSet[str], pooled: AbstractSet[str] = frozenset()
) -> Signature:
    """The settings of a run without some groups and keys."""
    prefixes = (*ignored, "metric_logging.")
    return tuple(
        sorted(
            (key, shown_value(value))
            for key, value in run.config.items()
            if not key.startswith(prefixes) and f"{key}." not in prefixes and key not in pooled
        )
    )


def _nearest(run: Run, baselines: Sequence[Run], ignored: set[str]) -> str:
    """In what the run differs from the baseline that is most like it."""
    own = dict(_signature(run, ignored))

    def differences(other: Run) -> list[str]:
        theirs = dict(_signature(other, ignored))
        names = {**own, **theirs}
        return [key for key in names if own.get(key) != theirs.get(key)]

    closest = min(baselines, key=lambda other: len(differences(other)))
    theirs = dict(_signature(closest, ignored))
    shown = [
        f"{key}={own.get(key, 'null')}, not {theirs.get(key, 'null')}"
        for key in differences(closest)[:3]
    ]
    return f"the nearest baseline has other settings: {'; '.join(shown)}"


def _spelled(conditions: Conditions) -> str:
    return ",".join(f"{key}={','.join(values)}" for key, values in conditions.items())
