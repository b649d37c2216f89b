"""Comparisons with a baseline on identical inputs, and their verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from sah.report.statistics.answer_costs import AnswerCosts, answer_costs
from sah.report.statistics.intervals import Interval
from sah.report.statistics.mean_difference import (
    cluster_sums,
    holm,
    mean_difference,
    mean_of_tasks,
    needed_examples,
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
    level: float = 0.05
    """Family-wise level of the tests of a difference, and level of each test of equivalence. The
    interval of each comparison has a confidence of 1 - level."""


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
    """Interval of the difference, not corrected for the number of comparisons: it excludes 0
    exactly if `p_value` is below the level. None with fewer than two contexts in a task, like the
    p-values."""
    p_value: float | None
    adjusted_p_value: float | None
    """Holm-adjusted over all comparisons of the table; verdicts of a difference follow from it."""
    equivalence_p_value: float | None
    """Of two one-sided tests of a difference beyond the margin; not adjusted."""
    differing_contexts: float
    """Effective number of contexts that differ from the median of their task."""
    few_differing: bool
    """Whether too few differ for any test to be exact; the interval includes pseudo-contexts."""
    gained: int
    """Number of examples that score higher than with the baseline."""
    lost: int
    """Number of examples that score lower."""
    costs: AnswerCosts
    """Answer lengths and keys read of both sides."""
    verdict: Verdict
    """`better` and `worse` are significant, `worse` also beyond the margin; `within` means
    equivalent, so that the difference lies within the margin."""
    needed: tuple[int, int] | None
    """Range of the number of examples that would decide it if the methods are equal; else None."""
    significant: bool

    @property
    def suspicious(self) -> bool:
        """Whether it is significantly better than the baseline, which is usually a bug."""
        return self.verdict == "better"

    @property
    def direction(self) -> Literal["worse", "better"] | None:
        """Direction of a difference that the interval shows but the corrected test may not."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high:
            return None
        return "worse" if self.interval.high < 0 else "better"

    @property
    def uninformative(self) -> Literal["floor", "ceiling"] | None:
        """`floor` or `ceiling` if both sides score too low or too high to tell them apart.

        Equal scores there do not support a claim. A loss from the ceiling does tell them apart.
        """
        if self.direction is not None:
            return None
        equal = self.verdict == "within"
        if self.baseline_score <= FLOOR and (equal or self.score <= FLOOR):
            return "floor"
        if self.baseline_score >= CEILING and (equal or self.score >= CEILING):
            return "ceiling"
        return None


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
        _decided(comparison, value, settings)
        for comparison, value in zip(compared, adjusted, strict=True)
    ], refused


def _comparison(match: Match, pairs: Pairs, task: str | None, settings: Settings) -> Comparison:
    frame = pairs.frame if task is None else pairs.frame.filter(pl.col("task") == task)
    scores, base_scores = frame["score"].to_numpy(), frame["score_baseline"].to_numpy()
    contexts, tasks = frame["context"].to_list(), frame["task"].to_list()
    # Fractional scores that are equal may differ by rounding noise.
    differences = (scores - base_scores).round(12)
    sums, counts = cluster_sums(differences, contexts, tasks)
    base_score = mean_of_tasks(*cluster_sums(base_scores, contexts, tasks))
    mean = mean_of_tasks(sums, counts)
    found = mean_difference(sums, counts)
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
        interval=found.interval(1 - settings.level) if found else None,
        p_value=found.p_value() if found else None,
        adjusted_p_value=None,
        equivalence_p_value=found.equivalence_p_value(settings.margin) if found else None,
        differing_contexts=found.differing if found else 0.0,
        few_differing=found is not None and found.trust < 1,
        gained=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        costs=answer_costs(frame),
        verdict="undecided",
        needed=needed_examples(found, len(frame), settings.margin, settings.level)
        if found
        else None,
        significant=False,
    )


def _decided(comparison: Comparison, adjusted: float | None, settings: Settings) -> Comparison:
    """Return the comparison with what follows from its tests, corrected for the table."""
    significant = adjusted is not None and adjusted < settings.level
    interval, equivalence = comparison.interval, comparison.equivalence_p_value
    verdict: Verdict = "undecided"
    if significant and comparison.difference > 0:
        verdict = "better"
    elif equivalence is not None and equivalence < settings.level:
        verdict = "within"
    elif significant and interval is not None and interval.high < -settings.margin:
        verdict = "worse"
    # Of methods that differ, no number of examples would show that they are equal.
    undecided = verdict == "undecided" and comparison.direction is None
    return replace(
        comparison,
        adjusted_p_value=adjusted,
        significant=significant,
        verdict=verdict,
        needed=comparison.needed if undecided else None,
    )


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
