"""One sampling distribution for the test and the interval of a mean paired difference.

The statistic is the mean over tasks of the mean paired difference. The unit is the context: its
questions, also those of several tasks, are not independent and move the statistic together.
"""

# C contexts, T tasks

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.sparse import csgraph

from sah.report.statistics.intervals import Interval, student_quantile

VISIBLE = 0.05
"""A context counts as differing at this distance from the median of its task, and in part below."""

FEW_DIFFERING = 10
"""Number of contexts that must differ before their own spread is trusted."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """A mean paired difference and its sampling distribution.

    (value - true value) / stderr, corrected for skewness by Hall's monotone transformation (1992,
    J. R. Stat. Soc. B 54, 221), follows Student's distribution. Both the p-values and the interval
    are read from it, so that an interval excludes a value exactly if the value is rejected.
    """

    value: float
    stderr: float
    skewness: float
    """Of `value`, not of a single difference."""
    freedom: float
    """Degrees of freedom (Satterthwaite)."""
    contexts: int
    differing: float
    """Effective number of contexts that differ from the median of their task."""
    trust: float
    """From 0, if no context differs, to 1, if enough do to estimate the spread."""
    weight: float
    """Root mean square over contexts of the weight in the mean; 1 / C if all weigh the same."""
    kurtosis: float
    """Σu⁴ / (Σu²)² of the contributions u of the contexts: 1 / number of equal flips."""

    def position(self, true_value: float) -> float:
        """Return where the observed value lies in the distribution of a true value."""
        score = (self.value - true_value) / self.stderr
        skew = self.skewness
        return score + skew * score**2 / 3 + skew**2 * score**3 / 27 + skew / 6

    def p_value(self) -> float:
        """Return the two-sided p-value of no difference."""
        return float(2 * special.stdtr(self.freedom, -abs(self.position(0.0))))

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the interval of the true values that the two-sided test does not reject."""
        quantile = student_quantile(confidence, self.freedom)
        low = self.value - self._score(quantile) * self.stderr
        high = self.value - self._score(-quantile) * self.stderr
        # Differences that cancel out are 0, not -0.0 or -1e-17.
        return Interval(low=max(-1.0, round(low, 12) + 0.0), high=min(1.0, round(high, 12) + 0.0))

    def equivalence_p_value(self, margin: float) -> float:
        """Return the p-value of two one-sided tests (TOST) of a difference beyond the margin."""
        loss = special.stdtr(self.freedom, -self.position(-margin))
        gain = special.stdtr(self.freedom, self.position(margin))
        return float(max(loss, gain))

    def _score(self, position: float) -> float:
        """Invert `position`."""
        skew = self.skewness
        shifted = position - skew / 6
        if abs(skew) < 1e-6:
            return shifted
        return 3 / skew * (math.cbrt(1 + skew * shifted) - 1)


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


def mean_of_tasks(sums: Matrix, counts: Matrix) -> float:
    """Return the mean over tasks of their means."""
    return float((sums.sum(0) / counts.sum(0)).mean())


def mean_difference(sums: Matrix, counts: Matrix) -> MeanDifference | None:
    """Estimate the sampling distribution of the mean difference.

    Where fewer than ten contexts (or fewer than half) differ, their own spread says little: zero
    flips in twenty contexts do not prove that flips never happen. The variance then includes two
    pseudo-contexts, one that gains everything and one that loses everything (after Agresti & Min,
    2005), once over all tasks. Their weight falls linearly to 0 with the number of contexts that
    differ, and that of the correction for skewness rises, which few contexts estimate badly.

    Args:
        sums: differences by context and task, [C, T].
        counts: their numbers, [C, T].

    Returns:
        None if a task has fewer than two contexts.
    """
    occurs = counts > 0
    by_task = occurs.sum(0)
    if (by_task < 2).any():
        return None
    contexts, tasks = counts.shape
    weights = counts / (counts.sum(0) * tasks)  # C T; sums to 1
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=occurs)
    centred = np.where(occurs, means - sums.sum(0) / counts.sum(0), 0.0)
    # The contributions of the contexts to the error; the factor makes the variance unbiased.
    contributions = (weights * np.sqrt(by_task / (by_task - 1)) * centred).sum(1)
    # Equal fractional scores differ by rounding noise.
    contributions[np.abs(contributions) < 1e-12] = 0.0
    squares = contributions**2
    total = float(squares.sum())
    weight = weights.sum(1)
    from_median = np.where(occurs, means - np.nanmedian(means, axis=0), 0.0)
    apart = np.abs((weights * from_median).sum(1)) / weight
    differing = float(np.minimum(1.0, apart / VISIBLE).sum())
    trust = min(1.0, differing / min(FEW_DIFFERING, contexts / 2))
    mean_square = float((weight**2).mean())
    unseen = 2 * (1 - trust) * mean_square
    variance = total + unseen
    return MeanDifference(
        value=mean_of_tasks(sums, counts),
        stderr=math.sqrt(variance),
        skewness=trust
        * differing
        / (differing + 5)
        * float((contributions**3).sum())
        / variance**1.5,
        freedom=_freedom(squares, occurs, unseen),
        contexts=contexts,
        differing=differing,
        trust=trust,
        weight=math.sqrt(mean_square),
        kurtosis=float((squares**2).sum()) / total**2 if total else 1.0,
    )


def _freedom(squares: NDArray[np.float64], occurs: NDArray[np.bool_], unseen: float) -> float:
    """Return Satterthwaite's degrees of freedom over groups of tasks that share no context."""
    overlap = occurs.T.astype(float) @ occurs
    number, group_of_task = csgraph.connected_components(overlap > 0, directed=False)
    group = group_of_task[occurs.argmax(1)]
    sizes = np.bincount(group, minlength=number)
    variances = np.bincount(group, weights=squares, minlength=number)
    freedom = len(squares) - number
    parts = float((variances**2 / (sizes - 1)).sum()) + unseen**2 / freedom
    return float((variances.sum() + unseen) ** 2 / parts)


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


def needed_examples(
    found: MeanDifference, examples: int, margin: float, level: float = 0.05
) -> tuple[int, int]:
    """Return how many examples show equal methods to be within the margin with power 0.8.

    Both ends of the range assume the present mix of tasks and questions. They belong to the 10 %
    and 90 % limits of the variance, which few differing contexts estimate badly.

    Args:
        found: what the present examples show.
        examples: their number.
        margin: the margin, above 0.
        level: of each of the two one-sided tests.
    """
    # A power of 0.8 leaves an error of 0.1 for each side of the margin.
    target = margin / float(stats.norm.ppf(1 - level) + stats.norm.ppf(0.9))
    equal_flips = 1 / found.kurtosis
    pseudo = 2 * found.weight**2
    total = max(0.0, found.stderr**2 - (1 - found.trust) * pseudo)
    flips = equal_flips if total else 0.0
    # Limits of the mean of a Poisson count (Garwood, 1936).
    unit = total * found.kurtosis if total else found.weight**2
    low = unit * float(special.gammaincinv(flips, 0.1)) if flips else 0.0
    high = unit * float(special.gammaincinv(flips + 1, 0.9))

    def factor(variance: float) -> float:
        """Return by how much the number of examples must grow."""
        smallest, largest = 1e-6, 1e12
        for _ in range(80):
            middle = math.sqrt(smallest * largest)
            differing = found.differing * middle
            trust = min(1.0, differing / min(FEW_DIFFERING, found.contexts * middle / 2))
            enough = variance / middle + (1 - trust) * pseudo / middle**2 <= target**2
            smallest, largest = (smallest, middle) if enough else (middle, largest)
        return largest

    return tuple(max(examples, math.ceil(examples * factor(each))) for each in (low, high))  # type: ignore[return-value]
