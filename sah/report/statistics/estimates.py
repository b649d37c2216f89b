"""Scores of runs and of groups of runs, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sah.report.reading.collect import Run, measured
from sah.report.statistics.intervals import Interval, mean_interval, score_interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean score in [0, 1]."""

    score: float | None
    """None where nothing could be scored: references that are not public."""
    interval: Interval | None
    """95 %; None where there are too few contexts."""
    n: int
    """Answers behind it."""


def run_estimate(run: Run) -> Estimate:
    """The overall score of one run, from results.json alone."""
    tasks: Mapping[str, Mapping[str, Any]] = run.results.get("tasks", {})
    if run.results.get("score") is None:
        return Estimate(score=None, interval=None, n=int(run.results["n"]))
    means = [float(task["score"]) for task in tasks.values()]
    intervals = [task_interval(task) for task in tasks.values()]
    interval = mean_interval(means, intervals)
    score = float(run.results["score"])
    stderr = measured(run, "stderr")
    independent = [float(task.get("stderr") or 0.0) for task in tasks.values()]
    together = math.hypot(*independent) / max(1, len(independent))
    if interval is not None and stderr is not None and len(tasks) > 1 and together > 0:
        # Where tasks share contexts their errors do not average away.
        wider = max(1.0, stderr / together)
        interval = Interval(
            low=max(0.0, score - wider * (score - interval.low)),
            high=min(1.0, score + wider * (interval.high - score)),
        )
    return Estimate(score=score, interval=interval, n=int(run.results["n"]))


def task_interval(task: Mapping[str, Any]) -> Interval | None:
    """The interval of one entry of `tasks` in results.json."""
    if task["score"] is None:
        return None
    contexts = int(task.get("contexts", task["n"]))
    return score_interval(float(task["score"]), task.get("stderr"), contexts)


def group_estimate(scored: pl.DataFrame) -> Estimate:
    """The mean over runs of their overall scores, answers to one context clustered.

    The same contexts under several seeds or methods are not independent: they move the
    mean together, and count once.

    Args:
        scored: answers of the group's runs, as `read_scored` gives them.
    """
    scored = scored.drop_nulls("score")
    if scored.is_empty():
        return Estimate(score=None, interval=None, n=0)
    weighted = scored.with_columns(
        mean=pl.col("score").mean().over("run", "task"),
        weight=1.0
        / pl.len().over("run", "task")
        / pl.col("task").n_unique().over("run")
        / pl.col("run").n_unique(),
    )
    deviations = weighted.group_by("context").agg(
        (pl.col("weight") * (pl.col("score") - pl.col("mean"))).sum()
    )["weight"]
    contexts = len(deviations)
    score = float(weighted.select(pl.col("weight").dot(pl.col("score"))).item())
    stderr = None
    if contexts > 1:
        stderr = math.sqrt(contexts / (contexts - 1) * float((deviations**2).sum()))
    return Estimate(score=score, interval=score_interval(score, stderr, contexts), n=len(scored))


def mean_of(runs: Sequence[Run], *path: str) -> float | None:
    """Mean of a measurement over the runs that have it."""
    known = [value for run in runs if (value := measured(run, *path)) is not None]
    return sum(known) / len(known) if known else None


def tokens_per_second(runs: Sequence[Run]) -> float | None:
    """Decoded tokens per second of question and answer, over all runs."""
    tokens = sum(measured(run, "timing", "new_tokens") or 0.0 for run in runs)
    seconds = sum(measured(run, "timing", "decode_seconds") or 0.0 for run in runs)
    return tokens / seconds if seconds > 0 else None


def peak_memory(runs: Sequence[Run]) -> float | None:
    """The most memory a run held, in bytes."""
    known = [measured(run, "provenance", "peak_memory_bytes") for run in runs]
    return max((value for value in known if value is not None), default=None)


def index_bytes(runs: Sequence[Run]) -> float | None:
    """Memory of all key indexes of a run, in bytes per key and layer; None without any."""
    totals = [
        sum(sizes.values()) for run in runs if (sizes := run.results.get("index_bytes") or {})
    ]
    return sum(totals) / len(totals) if totals else None
