"""Statistics of paired differences: bootstrap interval, sign test, Holm's correction, sample size.

The unit is the context: questions about the same context are not independent, so they are
resampled together and cast one vote.
"""

# R resamples, C contexts, T tasks

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.sparse import csgraph

from sah.report.statistics.intervals import Interval, student_quantile
from sah.seeding import derive

_FEW_DIFFERING = 10
"""A bootstrap underestimates the spread with fewer contexts that differ from the majority."""

_CELLS_AT_ONCE = 2_000_000

Matrix = NDArray[np.float64]


def cluster_sums(
    differences: Sequence[float] | Matrix, contexts: Sequence[str], tasks: Sequence[str]
) -> tuple[Matrix, Matrix]:
    """Return the sum and number of the differences of each context in each task, both [C, T]."""
    _, context = np.unique(np.asarray(contexts), return_inverse=True)
    _, task = np.unique(np.asarray(tasks), return_inverse=True)
    sums = np.zeros((context.max() + 1, task.max() + 1))
    counts = np.zeros_like(sums)
    np.add.at(sums, (context, task), np.asarray(differences, dtype=float))
    np.add.at(counts, (context, task), 1.0)
    return sums, counts


def mean_difference(sums: Matrix, counts: Matrix) -> float:
    """Return the mean over tasks of their mean differences."""
    return float((sums.sum(0) / counts.sum(0)).mean())


def bootstrap_interval(
    sums: Matrix,
    counts: Matrix,
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval | None:
    """Return a bootstrap interval of `mean_difference`, resampling contexts within tasks.

    Tasks that share contexts are resampled together. The interval takes percentiles, expanded
    for small samples (Hesterberg, 2015, section 5.3). If fewer than ten contexts of a stratum
    (and fewer than half) differ from the majority, one pseudo-context that gains everything and
    one that loses everything are added (after Agresti & Min, 2005), because zero flips in twenty
    contexts do not prove that flips never happen.

    Args:
        sums: differences by context and task, [C, T].
        counts: their numbers, [C, T].
        seed: seed of the resampling.
        resamples: R.
        confidence: of the two-sided interval.

    Returns:
        None if a task has fewer than two contexts.
    """
    if ((counts > 0).sum(0) < 2).any():
        return None
    total = np.zeros(resamples)
    strata = _strata(counts)
    for number, tasks in enumerate(strata):
        members = (counts[:, tasks] > 0).any(1)
        total += _resampled_means(
            *_with_pseudo_contexts(sums[members][:, tasks], counts[members][:, tasks]),
            resamples,
            derive(seed, "bootstrap", number),
        )
    means = total / counts.shape[1]
    low, high = np.quantile(means, _expanded(confidence, len(counts), len(strata)))
    # Differences that cancel out are 0, not -0.0 or -1e-17.
    low, high = low.round(12) + 0.0, high.round(12) + 0.0
    return Interval(low=max(-1.0, float(low)), high=min(1.0, float(high)))


def _strata(counts: Matrix) -> list[NDArray[np.intp]]:
    """Group tasks so that no two groups share a context."""
    number, stratum = csgraph.connected_components((counts.T @ counts) > 0, directed=False)
    # The order of the groups seeds their resampling.
    return [np.flatnonzero(stratum == label) for label in reversed(range(number))]


def _with_pseudo_contexts(sums: Matrix, counts: Matrix) -> tuple[Matrix, Matrix]:
    values = (sums.sum(1) / counts.sum(1)).round(9)
    _, numbers = np.unique(values, return_counts=True)
    if len(values) - numbers.max() >= min(_FEW_DIFFERING, len(values) / 2):
        return sums, counts
    size = counts.sum(0) / len(counts)
    return np.vstack([sums, size, -size]), np.vstack([counts, np.stack([size, size])])


def _resampled_means(sums: Matrix, counts: Matrix, resamples: int, seed: int) -> Matrix:
    """Return the sum over tasks of the mean difference, for each resample of contexts, [R]."""
    pieces = []
    step = max(1, _CELLS_AT_ONCE // len(sums))
    for start in range(0, resamples, step):
        drawn = _drawn(len(sums), min(step, resamples - start), derive(seed, start))
        numbers = drawn @ counts
        # A task without any of the drawn contexts contributes its observed mean.
        means = np.divide(
            drawn @ sums,
            numbers,
            out=np.broadcast_to(sums.sum(0) / counts.sum(0), numbers.shape).copy(),
            where=numbers > 0,
        )
        pieces.append(means.sum(1))
    return np.concatenate(pieces)


@lru_cache(maxsize=16)
def _drawn(contexts: int, resamples: int, seed: int) -> Matrix:
    """Draw how often each context occurs in each resample, [R, C].

    Cached, because most comparisons of a sweep have the same number of contexts.
    """
    generator = np.random.default_rng(seed)
    share = np.full(contexts, 1 / contexts)
    return generator.multinomial(contexts, share, size=resamples).astype(float)


def _expanded(confidence: float, contexts: int, strata: int) -> tuple[float, float]:
    """Return the two quantiles that make the interval as wide as Student's."""
    freedom = max(1, contexts - strata)
    quantile = student_quantile(confidence, freedom)
    tail = float(special.ndtr(-math.sqrt(contexts / freedom) * quantile))
    return tail, 1 - tail


def sign_test(sums: Matrix) -> float | None:
    """Return the p-value of the two-sided exact sign test over contexts; None if none differs.

    With one question per context and scores of 0 and 1 this is McNemar's exact test.
    """
    by_context = sums.sum(1)
    gained, lost = int((by_context > 1e-12).sum()), int((by_context < -1e-12).sum())
    if gained + lost == 0:
        return None
    return float(stats.binomtest(gained, gained + lost).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values to control the family-wise error rate (Holm, 1979).

    A comparison without a p-value counts as p = 1.
    """
    values = [1.0 if value is None else value for value in p_values]
    adjusted = [1.0] * len(values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[position]))
        adjusted[position] = largest
    return [
        None if given is None else value for given, value in zip(p_values, adjusted, strict=True)
    ]


def needed_examples(sums: Matrix, counts: Matrix, margin: float, level: float = 0.05) -> int:
    """Return the number of examples that shows equal methods to be within the margin, power 0.8.

    The variance is that of the differences around 0, plus one more differing context: even if
    none was observed, the next one may differ.

    Args:
        sums: differences by context and task, [C, T].
        counts: their numbers, [C, T].
        margin: the margin, above 0.
        level: of the two-sided interval that must lie within the margin.
    """
    tasks = counts.shape[1]
    weight = 1 / (counts.sum(0) * tasks)
    variance = float(((sums @ weight) ** 2).sum())
    variance += float(((counts.sum(0) / (counts > 0).sum(0) * weight) ** 2).sum())
    # A power of 0.8 leaves an error of 0.1 for each side of the margin.
    quantiles = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(0.9))
    return math.ceil(float(counts.sum()) * variance * (quantiles / margin) ** 2)
