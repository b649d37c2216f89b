"""Statistics of questions that were asked several times: the question is the unit."""

import math

import numpy as np
import pytest

from sah.report.reading.answers import read_scored
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.estimates import group_estimate, result_estimate
from sah.report.statistics.intervals import score_interval
from sah.report.statistics.pairing import match

REPEATS = 16
DENSE = {"attention": ["dense"]}


@pytest.fixture
def both(write_result, results):
    """Compare 30 questions asked 16 times, and the same as one score per question."""
    generator = np.random.default_rng(0)
    share = generator.beta(0.3, 0.3, 30)
    found = {}
    for attention, loss in (("dense", 0.0), ("sparse", 0.1)):
        right = generator.binomial(1, np.maximum(share - loss, 0), (REPEATS, 30)).T
        names = [str(number) for number in range(30)]
        write_result(
            attention,
            scores=[float(one) for one in right.ravel()],
            contexts=[name for name in names for _ in range(REPEATS)],
            benchmark="repeated",
        )
        means = [float(mean) for mean in right.mean(1)]
        write_result(attention, scores=means, contexts=names, benchmark="once")
    for result in results():
        found.setdefault(result.benchmark, []).append(result)
    return found["repeated"], found["once"]


def test_the_unit_of_a_comparison_is_the_question(both):
    """Each repeat is paired with that of the same id, and moves the mean with its question."""
    of_both = []
    for results in both:
        matches, _ = match(results, DENSE)
        (comparison,), refused = compare(matches, Settings())
        assert refused == []
        of_both.append(comparison)
    repeated, once = of_both
    assert (repeated.pairs, once.pairs) == (30 * REPEATS, 30)
    for name in ("difference", "p_value", "equivalence_p_value", "differing_contexts"):
        assert getattr(repeated, name) == pytest.approx(getattr(once, name)), name
    assert repeated.interval.low == pytest.approx(once.interval.low)
    assert repeated.interval.high == pytest.approx(once.interval.high)


def test_the_unit_of_an_interval_is_the_question(both):
    for repeated, once in zip(*both, strict=True):
        for estimate in (result_estimate, lambda result: group_estimate(read_scored([result]))):
            one, other = estimate(repeated), estimate(once)
            assert one.n == REPEATS * other.n
            assert one.score == pytest.approx(other.score)
            expected = score_interval(other.score, once.stderr, 30, answers=30 * REPEATS)
            assert one.interval.low == pytest.approx(expected.low)
            assert one.interval.high == pytest.approx(expected.high)
            # Single fractional scores may hide a rare one of another kind; means of 16 hardly can.
            assert other.interval.low < expected.low < expected.high < other.interval.high


def solved(generator, size):
    """Forty per cent are never answered, thirty always."""
    position = generator.random(size)
    return np.select([position < 0.4, position < 0.7], [0, 1], generator.random(size))


# Distributions of the share of right answers to a question, and their means.
WORLDS = {
    "uniform": (lambda generator, size: generator.random(size), 0.5),
    "bimodal": (lambda generator, size: generator.beta(0.3, 0.3, size), 0.5),
    "similar": (lambda generator, size: generator.beta(2, 2, size), 0.5),
    "difficult": (lambda generator, size: generator.beta(0.3, 0.7, size), 0.3),
    "solved": (solved, 0.45),
}


def test_the_interval_of_mean_at_16_over_30_questions_covers_95_per_cent():
    generator, covered = np.random.default_rng(0), {}
    for name, (world, truth) in WORLDS.items():
        hits = 0
        for _ in range(2000):
            means = generator.binomial(REPEATS, world(generator, 30)) / REPEATS
            stderr = float(means.std(ddof=1) / math.sqrt(30))
            found = score_interval(float(means.mean()), stderr, 30, answers=30 * REPEATS)
            hits += found.low <= truth <= found.high
        covered[name] = hits / 2000
    # A simulated share of 2,000 is off by up to .01.
    assert all(0.935 <= share <= 0.97 for share in covered.values()), covered
    assert 0.94 <= np.mean(list(covered.values())) <= 0.96, covered
