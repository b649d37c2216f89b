"""What the figures show, on paper and in the browser: points, fronts, profiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from sah.report.reading.answers import read_micro_metrics, read_scored
from sah.report.reading.collect import Run
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import natural
from sah.report.reading.select import shown_value, value_of
from sah.report.statistics.estimates import (
    Estimate,
    group_estimate,
    mean_of,
    run_estimate,
    task_interval,
)
from sah.results import metric_names

AnyPoint = TypeVar("AnyPoint", bound="Point")

OUTPUT_ERROR, RECALL = metric_names.OUTPUT_ERROR, metric_names.RECALL

_POSITIONS = 32
"""Bins of the answer, so that a line has as many points for every length."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One method at one setting on one benchmark; seeds are averaged."""

    panel: str
    """Model, benchmark and whatever else is not the method."""
    attention: str
    settings: str
    runs: Sequence[Run]
    estimate: Estimate
    density: float | None

    @property
    def name(self) -> str:
        """The method with its settings."""
        return f"{self.attention} {self.settings}".strip()

    @property
    def seconds_per_token(self) -> float | None:
        """Decoding, question included."""
        seconds = mean_of(self.runs, "timing", "decode_seconds")
        tokens = mean_of(self.runs, "timing", "new_tokens")
        return seconds / tokens if seconds is not None and tokens else None

    @property
    def bytes_per_step(self) -> float | None:
        """Keys and values read per decoded token: density × prompt × bytes of a token."""
        tokens = mean_of(self.runs, "prompt_tokens")
        size = mean_of(self.runs, "cache_bytes_per_token")
        if self.density is None or tokens is None or size is None:
            return None
        return self.density * tokens * size


@dataclass(frozen=True, kw_only=True)
class ScoredPoint(Point):
    """A point that can be drawn against its score."""

    score: float


def points(runs: Sequence[Run]) -> list[Point]:
    """One point for every method, setting and benchmark."""
    keys = differing_keys(runs)
    of_method = [key for key in keys if key.startswith(METHOD)]
    of_panel = [key for key in keys if key not in of_method and key != "seed"]
    headers = short_names(of_panel)
    several_models = len({run.model for run in runs}) > 1
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run, settings in zip(runs, method_settings(runs, of_method), strict=True):
        subset = "" if run.subset == "all" else run.subset
        parts = [run.model if several_models else "", run.benchmark, subset]
        parts += [
            f"{headers[key]}={shown_value(value_of(run, key))}"
            for key in of_panel
            if value_of(run, key) is not None
        ]
        if run.protocol != "default":
            parts.append(f"({run.protocol})")
        panel = " ".join(part for part in parts if part)
        groups.setdefault((panel, run.attention, settings), []).append(run)
    ordered = sorted(groups.items(), key=lambda item: [natural(part) for part in item[0]])
    return [
        Point(
            panel=panel,
            attention=attention,
            settings=settings,
            runs=group,
            estimate=run_estimate(group[0])
            if len(group) == 1
            else group_estimate(read_scored(group)),
            density=mean_of(group, "density"),
        )
        for (panel, attention, settings), group in ordered
    ]


def panels(found: Sequence[AnyPoint]) -> dict[str, list[AnyPoint]]:
    """The points by panel, in their order."""
    grouped: dict[str, list[AnyPoint]] = {}
    for point in found:
        grouped.setdefault(point.panel, []).append(point)
    return grouped


def scored_points(runs: Sequence[Run]) -> list[ScoredPoint]:
    """The points that have a score."""
    return [
        ScoredPoint(**vars(point), score=point.estimate.score)
        for point in points(runs)
        if point.estimate.score is not None
    ]


def pareto_front(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, score) pairs that no other pair beats in one and equals in the other."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(found, key=lambda pair: (pair[0], -pair[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def task_estimates(run: Run) -> dict[str, Estimate]:
    """Scores by task, with 95 % intervals."""
    return {
        name: Estimate(score=float(task["score"]), interval=task_interval(task), n=int(task["n"]))
        for name, task in run.results.get("tasks", {}).items()
        if task["score"] is not None
    }


def task_points(found: Sequence[Point]) -> list[ScoredPoint]:
    """The points task by task, a panel for each."""
    several_panels = len(panels(found)) > 1
    of_tasks = []
    for point in found:
        # Seeds of one point share their tasks; the first stands for them where they differ.
        run = point.runs[0]
        for task, estimate in task_estimates(run).items():
            panel = task
            if several_panels:
                # The task takes the place of the subset that it is a part of: of a whole word.
                named = f" {point.panel} ".replace(f" {run.subset} ", f" {task} ")
                panel = (named if f" {task} " in named else named + task).strip()
            own = {"panel": panel, "runs": [run], "estimate": estimate, "score": estimate.score}
            of_tasks.append(ScoredPoint(**{**vars(point), **own}))
    return sorted(of_tasks, key=lambda point: natural(point.panel))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Means of a micro metric of some runs."""

    by_layer: dict[float, float]
    by_position: dict[float, float]
    """By the number of tokens after the end of the prompt (the middle of a bin)."""


def profiles(runs: Sequence[Run]) -> dict[str, Profile]:
    """Output error and recall by layer and by position in the answer; empty if not logged."""
    frames = []
    for run in runs:
        records = read_micro_metrics(run).filter(pl.col("metric").is_in([OUTPUT_ERROR, RECALL]))
        lengths = read_scored([run]).select(
            "example_id", prompt=pl.col("context_tokens") + pl.col("question_tokens")
        )
        frames.append(records.join(lengths, on="example_id", how="left"))
    records = pl.concat(frames)
    found = {}
    for metric in (OUTPUT_ERROR, RECALL):
        of_metric = records.filter(pl.col("metric") == metric)
        if of_metric.is_empty():
            continue
        found[metric] = Profile(
            by_layer=_means(of_metric, pl.col("layer_idx")),
            by_position=_by_position(of_metric),
        )
    return found


def _by_position(records: pl.DataFrame) -> dict[float, float]:
    # A record of the question carries the position of its first token: before the answer.
    after = records.with_columns(position=pl.col("step") - pl.col("prompt")).filter(
        pl.col("position") >= 0
    )
    if after.is_empty():
        return {}
    longest = int(after["position"].max()) + 1  # type: ignore[arg-type]
    width = max(1, -(-longest // _POSITIONS))
    return _means(after, (pl.col("position") // width) * width + (width - 1) / 2)


def _means(records: pl.DataFrame, key: pl.Expr) -> dict[float, float]:
    means = records.group_by(key=key).agg(pl.col("value").mean()).sort("key")
    return dict(means.drop_nulls().iter_rows())
