"""Scores of results and groups of results, with their intervals, and means of measurements."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from sah.report.statistics.intervals import Interval, mean_interval, score_interval
from sah.results.schema import MeanScore, Result


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean score in [0, 1]."""

    score: float | None
    """None if nothing could be scored because the references are not public."""
    interval: Interval | None
    """95 %; None with fewer than two contexts in a task."""
    n: int
    """Number of answers."""


def result_estimate(result: Result) -> Estimate:
    """Return the overall score of one result, from results.json alone."""
    if result.score is None:
        return Estimate(score=None, interval=None, n=result.n)
    means = [task.score for task in result.tasks.values() if task.score is not None]
    intervals = [task_interval(task) for task in result.tasks.values()]
    interval = mean_interval(means, intervals)
    independent = [task.stderr or 0.0 for task in result.tasks.values()]
    together = math.hypot(*independent) / max(1, len(independent))
    if interval is not None and result.stderr is not None and len(means) > 1 and together > 0:
        # The errors of tasks that share contexts do not average out.
        wider = max(1.0, result.stderr / together)
        interval = Interval(
            low=max(0.0, result.score - wider * (result.score - interval.low)),
            high=min(1.0, result.score + wider * (interval.high - result.score)),
        )
    return Estimate(score=result.score, interval=interval, n=result.n)


def task_interval(task: MeanScore) -> Interval | None:
    """Return the interval of one task's score."""
    return (
        None
        if task.score is None
        else score_interval(task.score, task.stderr, task.contexts, answers=task.n)
    )


def group_estimate(scored: pl.DataFrame) -> Estimate:
    """Return the mean over results of their overall scores, clustered by context.

    The same context under several seeds or methods is not independent: all its answers move
    the mean together and count as one observation.

    Args:
        scored: answers of the group's results, as `read_scored` returns them.
    """
    scored = scored.drop_nulls("score")
    if scored.is_empty():
        return Estimate(score=None, interval=None, n=0)
    # The mean of a task with one context per result, such as one per seed, is over all results.
    stratum = pl.col("context").n_unique().over("result", "task")
    alone, of_task = stratum == 1, pl.col("context").n_unique().over("task")
    size = pl.when(alone).then(of_task).otherwise(stratum)
    mean = pl.when(alone).then(pl.col("score").mean().over("task"))
    weighted = scored.with_columns(
        mean=mean.otherwise(pl.col("score").mean().over("result", "task")),
        unbiased=(size / pl.max_horizontal(size - 1, 1)).sqrt(),
        weight=1.0
        / pl.len().over("result", "task")
        / pl.col("task").n_unique().over("result")
        / pl.col("result").n_unique(),
    )
    deviation = pl.col("weight") * pl.col("unbiased") * (pl.col("score") - pl.col("mean"))
    deviations = weighted.group_by("context", maintain_order=True).agg(deviation.sum().alias("sum"))
    contexts = len(deviations)
    score = float(weighted.select(pl.col("weight").dot(pl.col("score"))).item())
    stderr = math.sqrt(float((deviations["sum"] ** 2).sum())) if contexts > 1 else None
    interval = score_interval(score, stderr, contexts, answers=len(scored))
    return Estimate(score=score, interval=interval, n=len(scored))


def differs_from_one(results: Sequence[Result], name: str) -> bool:
    """Whether a share of any of the results is visibly not 1, as it is under dense attention."""
    return any(abs((getattr(result, name) or 1.0) - 1) >= 0.0005 for result in results)


def known_mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that were measured; None if none was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def tokens_per_second(results: Sequence[Result]) -> float | None:
    """Return the decoding speed, question included, over all results."""
    tokens = sum(result.timing.new_tokens for result in results)
    seconds = sum(result.timing.decode_seconds for result in results)
    return tokens / seconds if seconds > 0 else None


def peak_memory(results: Sequence[Result]) -> float | None:
    """Return the largest peak memory of the results, in bytes."""
    known = [result.provenance.peak_memory_bytes for result in results]
    return max((value for value in known if value is not None), default=None)


def index_bytes(results: Sequence[Result]) -> float | None:
    """Return the mean size of all key indexes, in bytes per key and layer; None without any."""
    return known_mean(sum(result.index_bytes.values()) for result in results if result.index_bytes)
