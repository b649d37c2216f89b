"""Comparisons with a baseline on identical inputs, and their verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from sah.report.statistics.intervals import Interval
from sah.report.statistics.paired import (
    bootstrap_interval,
    cluster_sums,
    holm,
    mean_difference,
    needed_examples,
    sign_test,
)
from sah.report.statistics.pairing import Match, Pairs, read_pairs

# Number of matches whose answers are read at once.
_BATCH = 256

Verdict = Literal["within", "worse", "better", "undecided"]

FLOOR, CEILING = 0.05, 0.98
"""A benchmark tells no methods apart if its baseline scores at most FLOOR or at least CEILING."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a comparison."""

    margin: float = 0.01
    """Largest difference that counts as none, in score (0.01 is one point)."""
    resamples: int = 10_000
    seed: int = 0
    level: float = 0.05
    """Family-wise level of the tests; intervals have a confidence of 1 - level."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of one method with its baseline, on one benchmark or one task."""

    match: Match
    task: str | None
    """None for the mean over all tasks of the benchmark."""
    pairs: int
    different_inputs: int
    """Of the whole match, like the next three, even if `task` is given."""
    different_references: int
    different_limits: int
    unanswered: int
    baseline_score: float
    score: float
    difference: float
    interval: Interval | None
    """Interval of the difference; None with fewer than two contexts in a task."""
    p_value: float | None
    """None if no context differs."""
    adjusted_p_value: float | None
    """Holm-adjusted over all comparisons of the table."""
    gained: int
    """Number of examples that score higher than with the baseline."""
    lost: int
    """Number of examples that score lower."""
    verdict: Verdict
    needed: int | None
    """Approximate number of examples that would decide it if the methods are equal; else None."""
    significant: bool

    @property
    def suspicious(self) -> bool:
        """Whether it is significantly better than the baseline, which is usually a bug."""
        return self.significant and self.difference > 0

    @property
    def uninformative(self) -> Literal["floor", "ceiling"] | None:
        """`floor` or `ceiling` if the baseline scores too low or too high to tell methods apart."""
        if self.baseline_score <= FLOOR:
            return "floor"
        return "ceiling" if self.baseline_score >= CEILING else None


def compare(
    matches: Sequence[Match], settings: Settings, *, per_task: bool = False
) -> tuple[list[Comparison], list[tuple[Match, str]]]:
    """Compare every match, with p-values adjusted for the number of comparisons.

    Returns:
        The comparisons, and the matches that cannot be compared, each with the reason.
    """
    compared, refused = [], []
    batches = (matches[start : start + _BATCH] for start in range(0, len(matches), _BATCH))
    paired = (
        (one, pairs)
        for batch in batches
        for one, pairs in zip(batch, read_pairs(batch), strict=True)
    )
    for match, pairs in paired:
        if pairs.frame.is_empty():
            refused.append((match, _refusal(pairs)))
            continue
        tasks = sorted(pairs.frame["task"].unique()) if per_task else [None]
        for task in tasks:
            compared.append(_comparison(match, pairs, task, settings))
    adjusted = holm([comparison.p_value for comparison in compared])
    return [
        replace(
            comparison,
            adjusted_p_value=value,
            significant=value is not None and value < settings.level,
        )
        for comparison, value in zip(compared, adjusted, strict=True)
    ], refused


def _comparison(match: Match, pairs: Pairs, task: str | None, settings: Settings) -> Comparison:
    frame = pairs.frame if task is None else pairs.frame.filter(pl.col("task") == task)
    scores, base_scores = frame["score"].to_numpy(), frame["score_baseline"].to_numpy()
    differences = scores - base_scores
    contexts, tasks = frame["context"].to_list(), frame["task"].to_list()
    sums, counts = cluster_sums(differences, contexts, tasks)
    base_score = mean_difference(*cluster_sums(base_scores, contexts, tasks))
    mean = mean_difference(sums, counts)
    interval = bootstrap_interval(
        sums,
        counts,
        seed=settings.seed,
        resamples=settings.resamples,
        confidence=1 - settings.level,
    )
    verdict = _verdict(interval, settings.margin)
    needed = None
    if verdict == "undecided" and interval is not None:
        needed = needed_examples(sums, counts, settings.margin, settings.level)
    return Comparison(
        match=match,
        task=task,
        pairs=len(frame),
        different_inputs=pairs.different_inputs,
        different_references=pairs.different_references,
        different_limits=pairs.different_limits,
        unanswered=pairs.unanswered,
        baseline_score=base_score,
        score=base_score + mean,
        difference=mean,
        interval=interval,
        p_value=sign_test(sums),
        adjusted_p_value=None,
        gained=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        verdict=verdict,
        needed=needed,
        significant=False,
    )


def _verdict(interval: Interval | None, margin: float) -> Verdict:
    if interval is None:
        return "undecided"
    if interval.high < -margin:
        return "worse"
    if interval.low > margin:
        return "better"
    inside = -margin <= interval.low and interval.high <= margin
    return "within" if inside else "undecided"


def _refusal(pairs: Pairs) -> str:
    if pairs.paired:
        return "their answers have no scores, because the references are not public"
    if pairs.different_inputs:
        return (
            f"none of {pairs.different_inputs} common examples has the same input tokens; "
            "scores of different prompts are not compared"
        )
    if pairs.different_references or pairs.different_limits:
        return (
            f"of their common examples, {pairs.different_references} have other references and "
            f"{pairs.different_limits} another token limit: the benchmark's data or code changed "
            "between the two; run the older one again with resume=false"
        )
    return "they have no example in common"
