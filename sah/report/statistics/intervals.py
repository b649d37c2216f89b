"""Confidence intervals of scores in [0, 1], from mean, standard error and number of contexts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The limits of a confidence interval."""

    low: float
    high: float


def score_interval(
    mean: float, stderr: float | None, contexts: int, confidence: float = 0.95
) -> Interval | None:
    """Return Wilson's interval with the effective sample size (Franco et al., 2019, eq. 8).

    The effective size is that of a binary score with the same standard error, so one formula
    serves exact match, token F1 and clustered questions, and the limits stay in [0, 1]. If all
    scores are equal, it is the number of contexts.

    Args:
        mean: in [0, 1].
        stderr: standard error of the mean, clustered by context.
        contexts: number of independent contexts.
        confidence: of the two-sided interval.

    Returns:
        None if there is no standard error or fewer than two contexts.
    """
    if stderr is None or contexts < 2:
        return None
    spread = mean * (1 - mean)
    # stderr² of a binary score is p(1-p) / (n-1).
    size = spread / stderr**2 + 1 if stderr > 0 else float(contexts)
    quantile = student_quantile(confidence, contexts - 1)
    centre = (mean + quantile**2 / (2 * size)) / (1 + quantile**2 / size)
    half = (
        quantile / (1 + quantile**2 / size) * math.sqrt(spread / size + quantile**2 / (4 * size**2))
    )
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """Return Student's quantile: half the width of a two-sided interval in standard errors."""
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


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
