import math

import numpy as np
import pytest
from scipy import stats

from sah.report.statistics.intervals import Interval, mean_interval, score_interval


def stderr(values):
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


@pytest.mark.parametrize("contexts", [5, 100])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_for_binary_scores_it_is_clopper_and_pearsons_exact_interval(share, contexts):
    successes = round(share * contexts)
    values = [1.0] * successes + [0.0] * (contexts - successes)
    found = score_interval(successes / contexts, stderr(values), contexts)
    expected = stats.binomtest(successes, contexts).proportion_ci(method="exact")
    assert [found.low, found.high] == pytest.approx([expected.low, expected.high])


def test_far_from_the_limits_it_is_students_interval():
    values = np.random.default_rng(0).normal(0.5, 0.2, 400)
    mean, error = float(values.mean()), stderr(values)
    found = score_interval(mean, error, 400)
    expected = stats.t.interval(0.95, 399, mean, error)
    assert [found.low, found.high] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("noise", [0.0, 1e-17, 1e-9, 1e-4, 1e-3])
def test_the_interval_is_continuous_in_the_data(noise):
    """One of five scores of 1.0 becomes .999; the lower limit jumped from 39 to 99.8."""
    values = [1.0] * 4 + [1.0 - noise]
    found = score_interval(float(np.mean(values)), stderr(values), 5)
    assert 0.4 < found.low < 0.5
    assert found.low == pytest.approx(score_interval(1.0, 0.0, 5).low, abs=0.001)


def test_equal_fractional_scores_with_rounding_noise_count_as_equal():
    assert score_interval(0.7, 1e-17, 10) == score_interval(0.7, 0.0, 10)


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


WORLDS = {
    "binary": lambda generator, size: generator.random(size) < 0.02,
    "beta": lambda generator, size: generator.beta(0.02, 0.98, size),
    "small": lambda generator, size: generator.beta(2, 98, size),
    "rare halves": lambda generator, size: 0.5 * (generator.random(size) < 0.04),
    "rare ones": lambda generator, size: np.where(generator.random(size) < 1 / 99, 1.0, 0.01),
}


@pytest.mark.parametrize("true_mean", [0.02, 0.98])
@pytest.mark.parametrize("contexts", [5, 20, 100])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_of_a_skewed_score_covers(world, contexts, true_mean):
    generator = np.random.default_rng(1)
    hits, trials = 0, 1000
    for _ in range(trials):
        values = WORLDS[world](generator, contexts).astype(float)
        values = values if true_mean < 0.5 else 1 - values
        found = score_interval(float(values.mean()), stderr(values), contexts)
        hits += found.low <= true_mean <= found.high
    assert hits / trials >= 0.92
