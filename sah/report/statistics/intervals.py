"""Confidence intervals of scores in [0, 1], from mean, standard error and number of contexts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy import special


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The limits of a confidence interval."""

    low: float
    high: float


def score_interval(
    mean: float,
    stderr: float | None,
    contexts: int,
    *,
    answers: int | None = None,
    confidence: float = 0.95,
) -> Interval | None:
    """Return a beta interval with the effective sample size (after Korn & Graubard, 1998).

    The effective size is that of a binary score with the same standard error, so one formula
    serves exact match, token F1, clustered questions and repeats, and the limits stay in [0, 1].
    For binary scores it is Clopper and Pearson's interval. That adds half an answer at either
    limit, since binary means are coarse; the finer the scores, the less is added, down to
    Jeffreys' interval, and the effective size is lowered by Student's quantile, since their spread
    is estimated. If all scores are 0 or all are 1, it is the number of contexts.

    Contexts that were not drawn may score 0 or 1, so the variance includes one pseudo-answer of
    either score, is at least that of one pseudo-context of either, and with them at most that of
    binary scores. Otherwise five answers of .001 would leave no room for the one in fifty that
    scores 1.

    Args:
        mean: in [0, 1].
        stderr: standard error of the mean, clustered by context.
        contexts: number of independent contexts.
        answers: number of answers about them; None for one each.
        confidence: of the two-sided interval.

    Returns:
        None if there is no standard error or fewer than two contexts.
    """
    if stderr is None or contexts < 2:
        return None
    spread = mean * (1 - mean)
    unseen = (mean**2 + (1 - mean) ** 2) / contexts**2
    binary = spread / (contexts - 1)  # stderr² of a binary score
    share = contexts / max(contexts, answers or contexts)  # of an answer in its context
    variance = max(stderr**2, min(binary, max(unseen, stderr**2 + unseen * share)))
    likeness = min(1.0, variance / binary) if binary > 0 else 1.0  # 1 for binary scores
    size = spread / variance + 1 if spread > 1e-12 else float(contexts)
    normal, student = (
        special.ndtri((1 + confidence) / 2),
        student_quantile(confidence, contexts - 1),
    )
    size = 1 + (size - 1) * (likeness + (1 - likeness) * (normal / student) ** 2)
    # The power is chosen by simulation: means of scores that are only nearly binary are not coarse.
    outside = (1 + likeness**4) / 2
    inside = 1 - outside
    tail, hits = (1 - confidence) / 2, size * mean
    misses = size - hits
    return Interval(
        low=_beta_quantile(hits + inside, misses + outside, tail) if hits > 1e-9 else 0.0,
        high=_beta_quantile(hits + outside, misses + inside, 1 - tail) if misses > 1e-9 else 1.0,
    )


def _beta_quantile(hits: float, misses: float, probability: float) -> float:
    return float(special.betaincinv(hits, misses, probability))


@cache
def student_quantile(confidence: float, freedom: float) -> float:
    """Return Student's quantile: half the width of a two-sided interval in standard errors."""
    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def mean_interval(means: Sequence[float], intervals: Sequence[Interval | None]) -> Interval | None:
    """Combine intervals into that of the mean of independent means (MOVER, Zou & Donner, 2008).

    Like the intervals that it combines, it stays in [0, 1].

    Returns:
        None if one of the means has no interval.
    """
    known = [interval for interval in intervals if interval is not None]
    if not means or len(known) < len(means):
        return None
    centre = sum(means) / len(means)
    below = sum((mean - one.low) ** 2 for mean, one in zip(means, known, strict=True))
    above = sum((one.high - mean) ** 2 for mean, one in zip(means, known, strict=True))
    return Interval(
        # Rounding can put a limit just outside [0, 1].
        low=max(0.0, centre - math.sqrt(below) / len(means)),
        high=min(1.0, centre + math.sqrt(above) / len(means)),
    )
