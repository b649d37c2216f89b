"""The data of the figures: points, Pareto fronts and profiles."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from sah.report.reading.answers import read_micro_metrics, read_scored
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import natural
from sah.report.reading.select import shown_value, value_of
from sah.report.statistics.estimates import (
    Estimate,
    group_estimate,
    known_mean,
    result_estimate,
    task_interval,
)
from sah.results.disturbance import disturbances
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL, Result
from sah.terminal import one_line

PROFILED = (OUTPUT_ERROR, RECALL, DENSITY)
"""Micro metrics that are shown by layer."""

AnyPoint = TypeVar("AnyPoint", bound="Point")

_POSITIONS = 32
"""Number of bins of the answer, so that every line has about the same number of points."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One method at one setting on one benchmark, averaged over seeds."""

    panel: str
    """Title of its panel: model, benchmark and all other settings but those of the method."""
    attention: str
    settings: str
    results: Sequence[Result]
    estimate: Estimate
    density: float | None
    rows_read: float | None
    resident: float | None
    prefill_density: float | None
    keys_read: float | None
    answer_tokens: float | None

    @property
    def name(self) -> str:
        """The method with its settings."""
        return f"{self.attention} {self.settings}".strip()

    @property
    def seconds_per_token(self) -> float | None:
        """Decoding time per new token, question included."""
        seconds = sum(result.timing.decode_seconds for result in self.results)
        tokens = sum(result.timing.new_tokens for result in self.results)
        return seconds / tokens if tokens else None

    @property
    def is_disturbed(self) -> bool:
        """Whether its speed was measured under conditions that make it hard to compare."""
        return any(disturbances(result) for result in self.results)

    @property
    def bytes_per_step(self) -> float | None:
        """Keys and values read per decoded token: rows read × prompt × bytes of a token."""
        tokens = known_mean(result.prompt_tokens for result in self.results)
        size = known_mean(result.cache_bytes_per_token for result in self.results)
        if self.rows_read is None or tokens is None or size is None:
            return None
        return self.rows_read * tokens * size


@dataclass(frozen=True, kw_only=True)
class ScoredPoint(Point):
    """A point with a score."""

    score: float


def points(results: Sequence[Result], pooled: Collection[str] = ("seed",)) -> list[Point]:
    """Return one point per method, setting and benchmark.

    Args:
        results: the results to show.
        pooled: keys whose values share a point. With benchmark.subset, tasks count alike,
            whichever experiment answered them.
    """
    keys = differing_keys(results)
    of_method = [key for key in keys if key.startswith(METHOD)]
    of_panel = [key for key in keys if key not in of_method and key not in pooled]
    by_subset = "benchmark.subset" not in pooled
    headers = short_names(of_panel)
    several_models = len({result.model for result in results}) > 1
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result, settings in zip(results, method_settings(results, of_method), strict=True):
        subset = "" if result.subset_name == "all" or not by_subset else result.subset_name
        parts = [result.model if several_models else "", result.benchmark, subset]
        parts += [
            f"{headers[key]}={shown_value(value_of(result, key))}"
            for key in of_panel
            if value_of(result, key) is not None
        ]
        if result.protocol != "default":
            parts.append(f"({result.protocol})")
        panel = " ".join(part for part in parts if part)
        groups.setdefault((panel, result.attention, settings), []).append(result)
    ordered = sorted(groups.items(), key=lambda item: [natural(part) for part in item[0]])
    return [
        Point(
            panel=one_line(panel),
            attention=one_line(attention),
            settings=one_line(settings),
            results=group,
            estimate=result_estimate(group[0])
            if len(group) == 1
            else group_estimate(read_scored(group) if by_subset else _by_seed(group)),
            density=known_mean(result.density for result in group),
            rows_read=known_mean(result.rows_read for result in group),
            resident=known_mean(result.resident for result in group),
            prefill_density=known_mean(result.prefill_density for result in group),
            keys_read=known_mean(result.keys_read for result in group),
            answer_tokens=known_mean(result.answer_tokens for result in group),
        )
        for (panel, attention, settings), group in ordered
    ]


def _by_seed(results: Sequence[Result]) -> pl.DataFrame:
    """Read the answers of some results; those of one seed become one result."""
    seeds = [shown_value(value_of(result, "seed")) for result in results]
    numbers = pl.Series([seeds.index(seed) for seed in seeds], dtype=pl.Int32)
    scored = read_scored(results)
    return scored.with_columns(result=numbers.gather(scored["result"]))


def panels(found: Sequence[AnyPoint]) -> dict[str, list[AnyPoint]]:
    """Group points by panel, keeping their order."""
    grouped: dict[str, list[AnyPoint]] = {}
    for point in found:
        grouped.setdefault(point.panel, []).append(point)
    return grouped


def scored_points(results: Sequence[Result]) -> list[ScoredPoint]:
    """Return the points that have a score."""
    return [
        ScoredPoint(**vars(point), score=point.estimate.score)
        for point in points(results)
        if point.estimate.score is not None
    ]


def pareto_front(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, score) pairs that no other pair dominates, by ascending cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(found, key=lambda pair: (pair[0], -pair[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def task_estimates(results: Sequence[Result]) -> dict[str, Estimate]:
    """Return the scores of the tasks with 95 % intervals, averaged over the results."""
    if len(results) == 1:
        return {
            name: Estimate(score=task.score, interval=task_interval(task), n=task.n)
            for name, task in results[0].tasks.items()
            if task.score is not None
        }
    # A task whose answers all lack a score has no estimate.
    scored = read_scored(results).drop_nulls("score")
    by_task = scored.partition_by("task", maintain_order=True, as_dict=True)
    return {str(task): group_estimate(answers) for (task,), answers in by_task.items()}


def task_points(found: Sequence[Point]) -> list[ScoredPoint]:
    """Split points by task, with one panel per task."""
    several_panels = len(panels(found)) > 1
    of_tasks = []
    for point in found:
        for name, estimate in task_estimates(point.results).items():
            panel = task_panel(point, name) if several_panels else one_line(name)
            changed = {"panel": panel, "estimate": estimate, "score": estimate.score}
            of_tasks.append(ScoredPoint(**{**vars(point), **changed}))
    return sorted(of_tasks, key=lambda point: natural(point.panel))


def task_panel(point: Point, name: str) -> str:
    """Return the title of a panel of one task: its name in place of the subset that contains it."""
    subset, task = one_line(point.results[0].subset_name), one_line(name)
    # As a whole word.
    named = f" {point.panel} ".replace(f" {subset} ", f" {task} ")
    return (named if f" {task} " in named else named + task).strip()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Means of one micro metric over the recorded queries of some results."""

    by_layer: dict[float, float]
    by_position: dict[float, float]
    """By number of tokens after the prompt (the middle of a bin)."""


def profiles(results: Sequence[Result]) -> dict[str, Profile]:
    """Return the profiles of the metrics in PROFILED that were logged, by metric name."""
    frames = []
    for result in results:
        records = read_micro_metrics(result).filter(pl.col("metric").is_in(PROFILED))
        lengths = read_scored([result]).select(
            "example_id", prompt=pl.col("context_tokens") + pl.col("question_tokens")
        )
        frames.append(records.join(lengths, on="example_id", how="left"))
    records = pl.concat(frames)
    found = {}
    for metric in PROFILED:
        of_metric = records.filter(pl.col("metric") == metric)
        if of_metric.is_empty():
            continue
        found[metric] = Profile(
            by_layer=_means(of_metric, pl.col("layer_idx")),
            by_position=_by_position(of_metric),
        )
    return found


def _by_position(records: pl.DataFrame) -> dict[float, float]:
    # The record of a question carries the position of its first token, which is before the answer.
    after = records.with_columns(position=pl.col("step") - pl.col("prompt")).filter(
        pl.col("position") >= 0
    )
    if after.is_empty():
        return {}
    longest = int(after["position"].max()) + 1  # type: ignore[arg-type]
    width = max(1, -(-longest // _POSITIONS))
    return _means(after, (pl.col("position") // width) * width + (width - 1) / 2)


def _means(records: pl.DataFrame, key: pl.Expr) -> dict[float, float]:
    mean = pl.col("value").dot(pl.col("queries")) / pl.col("queries").sum()
    means = records.group_by(key=key, maintain_order=True).agg(mean).sort("key")
    return dict(means.drop_nulls().iter_rows())
