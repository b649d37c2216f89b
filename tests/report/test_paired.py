"""Statistics of paired differences, against scipy and against simulation."""

import numpy as np
import pytest
from scipy import stats

from sah.report.statistics.paired import (
    bootstrap_interval,
    cluster_sums,
    holm,
    mean_difference,
    needed_examples,
    sign_test,
)


def clusters(differences, contexts=None, tasks=None):
    numbers = [str(number) for number in range(len(differences))]
    return cluster_sums(differences, contexts or numbers, tasks or ["task"] * len(numbers))


def width(interval):
    return interval.high - interval.low


def test_sums_and_counts_are_by_context_and_task():
    sums, counts = cluster_sums([1, -1, 0.5, 1], ["x", "x", "y", "y"], ["a", "b", "a", "a"])
    assert sums.tolist() == [[1, -1], [1.5, 0]]
    assert counts.tolist() == [[1, 1], [2, 0]]
    assert mean_difference(sums, counts) == pytest.approx((2.5 / 3 - 1) / 2)


def test_the_interval_agrees_with_scipys_bootstrap_for_independent_examples():
    values = np.random.default_rng(0).normal(0.1, 0.2, 200)
    found = bootstrap_interval(*clusters(values), seed=0)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=0
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.003)
    assert found.high == pytest.approx(expected.high, abs=0.003)


def test_for_few_samples_the_interval_is_as_wide_as_students():
    values = np.random.default_rng(0).normal(0.1, 0.2, 12)
    found = bootstrap_interval(*clusters(values), seed=0)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert width(found) == pytest.approx(high - low, rel=0.1)


def test_the_interval_depends_on_the_seed_alone():
    data = clusters(np.random.default_rng(0).normal(0, 1, 30))
    assert bootstrap_interval(*data, seed=1) == bootstrap_interval(*data, seed=1)
    assert bootstrap_interval(*data, seed=1) != bootstrap_interval(*data, seed=2)


def test_a_limit_whose_differences_cancel_out_is_zero():
    """Two examples gain 0.3 and eight lose as much; the upper limit used to be -5e-18."""
    values = [0.3] * 2 + [-0.3] * 8 + [0.0] * 10
    found = bootstrap_interval(*clusters(values), seed=0, resamples=500)
    assert str(found.high) == "0.0"
    assert found.low < 0


def test_questions_about_one_context_are_resampled_together():
    values = np.repeat(np.random.default_rng(0).normal(0, 0.2, 40), 5)
    contexts = [str(number // 5) for number in range(200)]
    together = bootstrap_interval(*clusters(values, contexts), seed=0)
    apart = bootstrap_interval(*clusters(values), seed=0)
    assert width(together) / width(apart) == pytest.approx(np.sqrt(5), rel=0.15)


def test_tasks_are_strata_of_equal_weight():
    """A difference between tasks is not noise and does not widen the interval."""
    noise = np.random.default_rng(0).normal(0, 0.05, 80)
    values = noise + np.repeat([0.5, -0.5], [60, 20])
    tasks = ["a"] * 60 + ["b"] * 20
    sums, counts = clusters(values, tasks=tasks)
    found = bootstrap_interval(sums, counts, seed=0)
    assert mean_difference(sums, counts) == pytest.approx(0.0, abs=0.03)
    assert width(found) < 0.04


def test_tasks_that_share_contexts_are_resampled_together():
    shared = np.random.default_rng(0).normal(0, 0.2, 50)
    values = np.concatenate([shared, shared])
    contexts = [str(number) for number in range(50)] * 2
    tasks = ["a"] * 50 + ["b"] * 50
    together = bootstrap_interval(*clusters(values, contexts, tasks), seed=0)
    apart = bootstrap_interval(*clusters(values, tasks=tasks), seed=0)
    assert width(together) / width(apart) == pytest.approx(np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_unanimous_examples_do_not_give_a_point_interval(value):
    found = bootstrap_interval(*clusters([value] * 20), seed=0)
    assert 0.1 < width(found) < 0.4


def test_a_task_with_one_context_has_no_interval():
    assert bootstrap_interval(*clusters([1.0, 0.0], tasks=["a", "b"]), seed=0) is None


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (0, 6), (3, 9), (10, 10)])
def test_the_sign_test_is_mcnemars_exact_test_for_binary_scores(gained, lost):
    values = [1.0] * gained + [-1.0] * lost + [0.0] * 7
    sums, _ = clusters(values)
    smaller = min(gained, lost)
    # McNemar's exact test by its definition.
    expected = min(1.0, 2 * stats.binom.cdf(smaller, gained + lost, 0.5))
    assert sign_test(sums) == pytest.approx(expected)


def test_a_context_has_one_vote_regardless_of_its_questions():
    sums, _ = clusters([-1.0] * 10 + [1.0], ["x"] * 10 + ["y"])
    assert sign_test(sums) == 1.0


def test_without_differences_there_is_no_p_value():
    assert sign_test(clusters([0.0, 0.0])[0]) is None


def test_holms_correction_matches_values_computed_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_the_needed_number_of_examples_gives_a_power_of_four_fifths():
    generator = np.random.default_rng(0)
    share = 0.1
    pilot = clusters(generator.choice([-1.0, 0.0, 1.0], 400, p=[share / 2, 1 - share, share / 2]))
    needed = needed_examples(*pilot, margin=0.1)
    assert needed_examples(*pilot, margin=0.2) == pytest.approx(needed / 4, rel=0.01)
    found = 0
    for trial in range(100):
        draw = generator.choice([-1.0, 0.0, 1.0], needed, p=[share / 2, 1 - share, share / 2])
        interval = bootstrap_interval(*clusters(draw), seed=trial, resamples=1000)
        found += interval.low >= -0.1 and interval.high <= 0.1
    assert 65 <= found <= 95


def binary(generator, n, gained, lost):
    values = generator.choice([1.0, 0.0, -1.0], n, p=[gained, 1 - gained - lost, lost])
    return clusters(values), gained - lost


def clustered(generator, contexts, questions):
    values = generator.normal(0, 0.2, contexts).repeat(questions)
    values = values + generator.normal(0, 0.2, len(values))
    names = [str(number // questions) for number in range(len(values))]
    tasks = [str(number % 3) for number in range(len(values))]
    return clusters(values, names, tasks), 0.0


WORLDS = {
    "few flips": lambda generator: binary(generator, 50, 0.02, 0.02),
    "losses": lambda generator: binary(generator, 100, 0.02, 0.15),
    "ten contexts": lambda generator: binary(generator, 10, 0.15, 0.25),
    "balanced": lambda generator: binary(generator, 200, 0.1, 0.1),
    "clustered": lambda generator: clustered(generator, 25, 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_interval_and_sign_test_keep_coverage_and_size(world):
    generator = np.random.default_rng(7)
    hits = rejected = 0
    trials = 600
    for trial in range(trials):
        (sums, counts), truth = WORLDS[world](generator)
        interval = bootstrap_interval(sums, counts, seed=trial, resamples=1000)
        hits += interval.low <= truth <= interval.high
        p_value = sign_test(sums)
        rejected += truth == 0 and p_value is not None and p_value < 0.05
    # Three standard errors of the simulation below 95 %.
    assert hits / trials >= 0.923
    assert rejected / trials <= 0.077


@pytest.mark.slow
def test_holm_keeps_the_level_over_a_whole_matrix():
    generator = np.random.default_rng(3)
    trials, wrong = 600, 0
    for _ in range(trials):
        p_values = [sign_test(binary(generator, 80, 0.15, 0.15)[0][0]) for _ in range(12)]
        wrong += any(p is not None and p < 0.05 for p in holm(p_values))
    assert wrong / trials <= 0.077
