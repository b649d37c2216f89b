"""The sampling distribution of paired differences, against definitions and against simulation."""

import numpy as np
import pytest
from scipy import stats

from sah.report.statistics.mean_difference import (
    cluster_sums,
    holm,
    mean_difference,
    mean_of_tasks,
    needed_examples,
)


def clusters(differences, contexts=None, tasks=None):
    numbers = [str(number) for number in range(len(differences))]
    return cluster_sums(differences, contexts or numbers, tasks or ["task"] * len(numbers))


def found(differences, contexts=None, tasks=None):
    return mean_difference(*clusters(differences, contexts, tasks))


def width(of):
    interval = of.interval()
    return interval.high - interval.low


def test_sums_and_counts_are_by_context_and_task():
    sums, counts = cluster_sums([1, -1, 0.5, 1], ["x", "x", "y", "y"], ["a", "b", "a", "a"])
    assert sums.tolist() == [[1, -1], [1.5, 0]]
    assert counts.tolist() == [[1, 1], [2, 0]]
    assert mean_of_tasks(sums, counts) == pytest.approx((2.5 / 3 - 1) / 2)


def test_symmetric_differences_have_students_test_and_interval():
    half = np.random.default_rng(0).uniform(0.1, 0.4, 20)
    values = np.concatenate([0.05 + half, 0.05 - half])
    one = found(values)
    expected = stats.ttest_1samp(values, 0)
    assert one.p_value() == pytest.approx(expected.pvalue)
    limits = expected.confidence_interval()
    assert [one.interval().low, one.interval().high] == pytest.approx([*limits])


def test_skewed_differences_have_halls_interval():
    values = np.random.default_rng(0).exponential(0.2, 30) - 0.2
    mean, error = values.mean(), stats.sem(values)
    one = found(values)
    skew = ((values - mean) ** 3).sum() / ((values - mean) ** 2).sum() ** 1.5
    skew *= one.differing / (one.differing + 5)  # few contexts estimate it badly
    quantile = stats.t.ppf(0.975, 29)
    inverse = [3 / skew * (np.cbrt(1 + skew * (at - skew / 6)) - 1) for at in (quantile, -quantile)]
    limits = [mean - at * error for at in inverse]
    interval = one.interval()
    assert [interval.low, interval.high] == pytest.approx(limits, abs=0.003)
    assert interval.high - mean > mean - interval.low, "gains may be missing in the longer tail"


def test_questions_about_one_context_move_together():
    by_context = np.random.default_rng(0).normal(0, 0.2, 40)
    contexts = [str(number // 5) for number in range(200)]
    together, alone = found(by_context.repeat(5), contexts), found(by_context)
    assert together.p_value() == pytest.approx(alone.p_value())
    assert width(together) == pytest.approx(width(alone))


def test_a_difference_between_tasks_is_not_noise():
    values = np.random.default_rng(0).normal(0, 0.05, 80) + np.repeat([0.5, -0.5], [60, 20])
    one = found(values, tasks=["a"] * 60 + ["b"] * 20)
    assert one.value == pytest.approx(0.0, abs=0.03)
    assert width(one) < 0.04


def test_tasks_that_share_contexts_move_together():
    shared = np.random.default_rng(0).normal(0, 0.3, 50)
    values, tasks = np.concatenate([shared, shared]), ["a"] * 50 + ["b"] * 50
    together = found(values, [str(number) for number in range(50)] * 2, tasks)
    assert together.p_value() == pytest.approx(found(shared).p_value())
    assert width(together) / width(found(values, tasks=tasks)) == pytest.approx(2**0.5, rel=0.1)


@pytest.mark.parametrize("value", [0.0, -1.0, -0.01])
def test_equal_differences_do_not_give_a_point_interval(value):
    """Zero flips in twenty contexts are compatible with a flip in seven (rule of three)."""
    assert 0.13 < width(found([value] * 20)) < 0.3


def test_pseudo_contexts_are_added_once_and_not_to_each_task():
    tasks = [f"task {number % 13}" for number in range(390)]
    assert width(found([0.0] * 390, tasks=tasks)) == pytest.approx(
        width(found([0.0] * 390)), rel=0.01
    )


def test_the_interval_is_continuous_in_the_data():
    values = np.array([0.0] * 18 + [-1.0] * 2)
    noise = np.random.default_rng(0).normal(0, 1e-6, 20)
    assert width(found(values + noise)) == pytest.approx(width(found(values)), rel=1e-3)


def test_rounding_noise_counts_as_equal():
    noise = np.random.default_rng(0).normal(0, 1e-17, 20)
    assert found(noise).interval() == found([0.0] * 20).interval()
    assert found(noise).p_value() == pytest.approx(1.0)


def test_differences_that_cancel_out_are_no_difference():
    one = found([0.3] * 10 + [-0.3] * 10)
    assert one.p_value() == pytest.approx(1.0)
    assert one.interval().low == pytest.approx(-one.interval().high)


def test_a_task_with_one_context_has_no_interval():
    assert found([1.0, 0.0], tasks=["a", "b"]) is None


def test_thirty_small_losses_do_not_outweigh_two_large_gains():
    """The sign test called this a loss (p < .001), while the mean is a gain."""
    one = found([0.5] * 2 + [-0.01] * 30)
    assert one.value > 0
    assert one.p_value() > 0.3
    assert one.interval().low < 0 < one.interval().high


@pytest.mark.parametrize(("gained", "lost"), [(0, 6), (1, 8), (2, 10), (5, 15), (20, 40)])
def test_where_mcnemars_exact_test_rejects_so_does_this(gained, lost):
    one = found([1.0] * gained + [-1.0] * lost + [0.0] * (100 - gained - lost))
    assert stats.binomtest(gained, gained + lost).pvalue < 0.05
    assert one.p_value() < 0.05


@pytest.mark.parametrize(("gained", "lost"), [(0, 3), (1, 5), (3, 9), (6, 14), (10, 10)])
def test_where_mcnemars_mid_p_test_does_not_reject_nor_does_this(gained, lost):
    both = gained + lost
    mid_p = 2 * stats.binom.cdf(min(gained, lost), both, 0.5) - stats.binom.pmf(gained, both, 0.5)
    assert mid_p > 0.05
    assert found([1.0] * gained + [-1.0] * lost + [0.0] * (100 - both)).p_value() > 0.05


def test_the_interval_excludes_a_value_exactly_if_the_test_rejects_it():
    generator = np.random.default_rng(5)
    rejected = 0
    for _ in range(3000):
        size = int(generator.integers(2, 40))
        scale = float(generator.choice([0.01, 0.1, 0.5]))
        values = generator.exponential(scale, size) * generator.choice([-1, 1], size, p=[0.3, 0.7])
        values[generator.random(size) < generator.random()] = 0.0
        tasks = [str(number % int(generator.integers(1, 3))) for number in range(size)]
        contexts = [str(number // 2) for number in range(size)]
        one = found(values.clip(-1, 1), contexts, tasks)
        if one is None:
            continue
        interval = one.interval()
        assert (one.p_value() < 0.05) == (not interval.low <= 0 <= interval.high)
        if one.p_value() < 0.05:
            rejected += 1
            assert (interval.low > 0) == (one.value > 0)
        narrow = one.interval(0.9)
        inside = narrow.low > -0.05 and narrow.high < 0.05
        assert (one.equivalence_p_value(0.05) < 0.05) == inside, "TOST is the 90 % interval"
    assert rejected > 100


def test_holm_matches_the_textbook():
    # p = .01, .04, .03: .03 = 3·.01, .06 = 2·.03, and .04 is raised to .06.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_comparison_without_p_value_counts_for_holm():
    assert holm([0.01, None]) == [pytest.approx(0.02), None]


@pytest.mark.parametrize("tasks", [1, 6])
def test_the_needed_number_has_the_power_it_promises(tasks):
    """The range of a large pilot is narrow, and .80 of the experiments of that size decide."""
    generator = np.random.default_rng(1)

    def draw(size):
        names = [str(number % tasks) for number in range(size)]
        return found(generator.choice([-1.0, 0.0, 1.0], size, p=[0.05, 0.9, 0.05]), tasks=names)

    # A pilot with exactly the true rates.
    values = np.array(([1.0, -1.0] + [0.0] * 18) * 60)
    names = [str(number // 20 % tasks) for number in range(1200)]
    low, high = needed_examples(found(values, tasks=names), 1200, 0.02)
    assert low < high < 1.6 * low
    power_at_low, power_at_high = (
        np.mean([draw(size).equivalence_p_value(0.02) < 0.05 for _ in range(400)])
        for size in (low, high)
    )
    assert 0.6 < power_at_low <= 0.84
    assert 0.76 <= power_at_high < 0.95


def test_equal_answers_still_name_a_range():
    low, high = needed_examples(found([0.0] * 20), 20, 0.01)
    assert 300 < low < 500, "what two pseudo-contexts alone need"
    assert 5000 < high < 15_000, "one flip in ten to twenty contexts may have been missed"


# -- simulations; perf/comparison_statistics.py has them all ---------------------------


def flips(generator, size, gained, lost):
    return generator.choice([1.0, 0.0, -1.0], size, p=[gained, 1 - gained - lost, lost])


def correlated(generator):
    """20 contexts × 10 questions with an intra-class correlation of .9."""
    shape = 0.5 * (1 - 0.9) / 0.9
    ours, theirs = (generator.binomial(10, generator.beta(shape, shape, 20)) for _ in range(2))
    return (ours - theirs) / 10


def rare_gains(generator):
    """A gain of .5 in 2 % of contexts that balances a loss of .01 in the others."""
    return np.where(generator.random(50) < 0.02, 0.5, -0.01 * 0.02 / 0.98 * 50)


@pytest.mark.parametrize(
    ("world", "least", "most"),
    [
        (lambda generator: flips(generator, 100, 0.1, 0.1), 0.03, 0.06),
        (correlated, 0.03, 0.06),
        (lambda generator: generator.exponential(0.2, 20) - 0.2, 0.03, 0.06),
        (rare_gains, 0.0, 0.06),
    ],
    ids=["flips", "correlated questions", "skewed", "rare gains"],
)
def test_the_test_keeps_its_size(world, least, most):
    generator = np.random.default_rng(11)
    trials = 1500
    rejected = sum(found(world(generator)).p_value() < 0.05 for _ in range(trials))
    noise = 2.5 * (0.05 * 0.95 / trials) ** 0.5
    assert least - noise <= rejected / trials <= most + noise


def test_the_interval_of_thirteen_tasks_covers_and_is_not_too_wide():
    generator = np.random.default_rng(2)
    tasks = [str(number % 13) for number in range(390)]
    trials, hits, widths = 600, 0, []
    for _ in range(trials):
        one = found(flips(generator, 390, 0.02, 0.04), tasks=tasks)
        interval = one.interval()
        hits += interval.low <= -0.02 <= interval.high
        widths.append(interval.high - interval.low)
    assert hits / trials >= 0.93 - 0.015
    ideal = 2 * 1.96 * ((0.06 - 0.02**2) / 390) ** 0.5
    assert np.mean(widths) / ideal <= 1.2


def test_holm_keeps_the_level_over_a_whole_matrix():
    generator = np.random.default_rng(3)
    trials, wrong = 300, 0
    for _ in range(trials):
        p_values = [found(flips(generator, 80, 0.15, 0.15)).p_value() for _ in range(12)]
        wrong += any(p is not None and p < 0.05 for p in holm(p_values))
    assert wrong / trials <= 0.085
