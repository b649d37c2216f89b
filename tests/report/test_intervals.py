import math

import numpy as np
import pytest
from scipy import stats

from sah.report.statistics.intervals import Interval, mean_interval, score_interval


def stderr(values):
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


@pytest.mark.parametrize("successes", [0, 1, 7, 50, 99, 100])
def test_for_many_binary_scores_it_is_scipys_wilson_interval(successes):
    values = [1.0] * successes + [0.0] * (100 - successes)
    found = score_interval(successes / 100, stderr(values), 100)
    expected = stats.binomtest(successes, 100).proportion_ci(method="wilson")
    # Student's quantile instead of the normal one makes it a little wider.
    assert found.low == pytest.approx(expected.low, abs=0.002)
    assert found.high == pytest.approx(expected.high, abs=0.002)
    assert found.high - found.low >= expected.high - expected.low


def test_far_from_the_limits_it_is_students_interval():
    values = np.random.default_rng(0).normal(0.5, 0.05, 50)
    mean, error = float(values.mean()), stderr(values)
    found = score_interval(mean, error, 50)
    expected = stats.t.interval(0.95, 49, mean, error)
    assert [found.low, found.high] == pytest.approx(expected, abs=1e-3)


def test_twenty_right_answers_do_not_prove_that_all_are_right():
    found = score_interval(1.0, 0.0, 20)
    assert found.low == pytest.approx(0.82, abs=0.02)
    assert found.high == 1.0


@pytest.mark.parametrize(("error", "contexts"), [(None, 5), (0.1, 1)])
def test_one_context_has_no_interval(error, contexts):
    assert score_interval(0.5, error, contexts) is None


def test_means_of_independent_tasks_have_narrower_intervals():
    one = Interval(low=0.4, high=0.6)
    found = mean_interval([0.5, 0.5], [one, one])
    assert found.high - found.low == pytest.approx(0.2 / math.sqrt(2))
    assert mean_interval([0.5, 0.5], [one, None]) is None


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("n", [10, 30, 100])
def test_the_interval_has_its_nominal_coverage(share, n):
    generator = np.random.default_rng(1)
    hits, trials = 0, 2000
    for _ in range(trials):
        values = (generator.random(n) < share).astype(float)
        found = score_interval(float(values.mean()), stderr(values), n)
        hits += found.low <= share <= found.high
    # Binary scores are discrete: no interval is exact, this one errs to the safe side.
    assert 0.93 <= hits / trials <= 1
