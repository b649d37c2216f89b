"""Size, coverage and power of the statistics of `sah compare` and `sah report`, by simulation.

    python perf/comparison_statistics.py [--trials 4000]

docs/numbers.md quotes what it prints.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from report_scale import timed, write_experiment

from sah.report.statistics.intervals import score_interval
from sah.report.statistics.mean_difference import cluster_sums, mean_difference, needed_examples

GENERATOR = np.random.default_rng(0)
FLIPS = 499


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    print("Differences: rejected, covered (%), width / ideal, sign flips rejected, contradictions")
    for name, (world, truth, tasks) in DIFFERENCES.items():
        print(f"{name:45}", *difference(world, truth, tasks, trials))
    print("Scores with a true mean of .02 or .98: covered (%)     contexts 5     10     30    100")
    for name, world in SCORES.items():
        covered = (min(score(world, size, trials)) for size in (5, 10, 30, 100))
        print(f"{name:55}", *(f"{100 * share:6.1f}" for share in covered))
    print("Rare scores of 1: covered (%)             contexts 30     100   100 means of 16")
    for name, (world, truth) in RARE.items():
        covered = (
            covers(world, truth, contexts, answers, trials)
            for contexts, answers in ((30, 1), (100, 1), (100, 16))
        )
        print(f"{name:55}", *(f"{100 * share:9.1f}" for share in covered))
    print("mean@k of q questions: covered (%) / width to ideal     q 30 k 4    30 k 16   100 k 16")
    for name, world in QUESTIONS.items():
        found = (repeated(world, *size, trials) for size in ((30, 4), (30, 16), (100, 16)))
        print(f"{name:52}", *(f"{100 * share:6.1f} {width:4.2f}" for share, width in found))
    print("Equal methods, ten pilots each: n≈, and the power at its middle (%)")
    for tasks in (1, 6, 13):
        print(f"{tasks:3} tasks", *power(tasks, trials // 10))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "large")
        for attention, share in (("dense", None), ("sparse", 0.1)):
            write_experiment(root, attention, share, 0, 50_000)
        print(f"sah compare of 2 × 50,000 answers: {timed(['compare', root]):.1f} s")


def flips(contexts, gained, lost):
    shares = [gained, 1 - gained - lost, lost]
    return lambda: GENERATOR.choice([1.0, 0.0, -1.0], contexts, p=shares)


def correlated():
    """20 contexts × 10 questions, intra-class correlation .9."""
    shape = 0.5 * (1 - 0.9) / 0.9
    ours, theirs = (GENERATOR.binomial(10, GENERATOR.beta(shape, shape, 20)) / 10 for _ in range(2))
    return ours - theirs


def balanced(contexts, share, gain, noise=0.0):
    """A rare gain that balances a small loss of the others."""

    def draw():
        values = np.where(GENERATOR.random(contexts) < share, gain, -gain * share / (1 - share))
        return values + GENERATOR.normal(0, noise, contexts)

    return draw


DIFFERENCES = {
    "flips of 20 % both ways, 20 contexts": (flips(20, 0.2, 0.2), 0, 1),
    "flips of 5 % both ways, 50 contexts": (flips(50, 0.05, 0.05), 0, 1),
    "flips of 10 % both ways, 100 contexts": (flips(100, 0.1, 0.1), 0, 1),
    "flips of 5 % both ways, 200 contexts": (flips(200, 0.05, 0.05), 0, 1),
    "20 contexts × 10 questions, correlation .9": (correlated, 0, 1),
    "normal, sd .05, 10 contexts": (lambda: GENERATOR.normal(0, 0.05, 10), 0, 1),
    "normal, sd .2, 12 contexts": (lambda: GENERATOR.normal(0, 0.2, 12), 0, 1),
    "exponential, 20 contexts": (lambda: GENERATOR.exponential(0.2, 20) - 0.2, 0, 1),
    "2 of 32 gain .5, the others lose": (balanced(32, 2 / 32, 0.5), 0, 1),
    "2 % gain .5, the others lose .01, 20": (balanced(20, 0.02, 0.5), 0, 1),
    "2 % gain .5, the others lose .01, 50": (balanced(50, 0.02, 0.5), 0, 1),
    "2 % gain .5, the others lose .01 ± .005, 50": (balanced(50, 0.02, 0.5, 0.005), 0, 1),
    "2 % gain .5, the others lose .01, 1,000": (balanced(1000, 0.02, 0.5), 0, 1),
    "10 % gain 1, the others lose .11 ± .07, 20": (balanced(20, 0.1, 1.0, 0.07), 0, 1),
    "5 % lost, 50 contexts": (flips(50, 0.0, 0.05), -0.05, 1),
    "13 tasks × 30, 5 % both ways": (flips(390, 0.05, 0.05), 0, 13),
    "13 tasks × 30, 1 % both ways": (flips(390, 0.01, 0.01), 0, 13),
    "13 tasks × 30, 2 % gained, 4 % lost": (flips(390, 0.02, 0.04), -0.02, 13),
    "13 tasks × 30, normal, sd .1": (lambda: GENERATOR.normal(0, 0.1, 390), 0, 13),
}

SCORES = {
    "binary": lambda size: GENERATOR.random(size) < 0.02,
    "beta(.02, .98)": lambda size: GENERATOR.beta(0.02, 0.98, size),
    "beta(.1, 4.9)": lambda size: GENERATOR.beta(0.1, 4.9, size),
    "beta(2, 98)": lambda size: GENERATOR.beta(2, 98, size),
    "4 % score .5, the others 0": lambda size: 0.5 * (GENERATOR.random(size) < 0.04),
    "1 % score 1, the others .01": lambda size: np.where(GENERATOR.random(size) < 1 / 99, 1, 0.01),
    "6 % score .3, the others .001": lambda size: np.where(
        GENERATOR.random(size) < 0.019 / 0.299, 0.3, 0.001
    ),
}


def mixture(never, always, some):
    """Questions that are never or always answered, and others."""

    def draw(size):
        position = GENERATOR.random(size)
        return np.where(position < never, 0, np.where(position > 1 - always, 1, some(size)))

    return draw


# The share of right answers to each question. The last five are hard: nearly all alike, or few
# that are ever answered.
QUESTIONS = {
    "uniform": lambda size: GENERATOR.random(size),
    "beta(.3, .3)": lambda size: GENERATOR.beta(0.3, 0.3, size),
    "beta(.1, .1)": lambda size: GENERATOR.beta(0.1, 0.1, size),
    "beta(2, 2)": lambda size: GENERATOR.beta(2, 2, size),
    "beta(.3, .7)": lambda size: GENERATOR.beta(0.3, 0.7, size),
    "beta(.5, 2)": lambda size: GENERATOR.beta(0.5, 2, size),
    "40 % never, 30 % always, others uniform": mixture(0.4, 0.3, GENERATOR.random),
    "55 % never, 15 % always, others uniform": mixture(0.55, 0.15, GENERATOR.random),
    "10 % never, 60 % always, others uniform": mixture(0.1, 0.6, GENERATOR.random),
    "70 % never, 10 % always, others beta(1, 2)": mixture(
        0.7, 0.1, lambda size: GENERATOR.beta(1, 2, size)
    ),
    "all .5": lambda size: np.full(size, 0.5),
    "98 % .5, 2 % never": mixture(0.02, 0, lambda size: 0.5),
    "beta(.2, 1.8)": lambda size: GENERATOR.beta(0.2, 1.8, size),
    "90 % never, others .5": mixture(0.9, 0, lambda size: 0.5),
    "all .05": lambda size: np.full(size, 0.05),
}


def found_in(values, tasks):
    numbers = np.arange(len(values))
    return mean_difference(*cluster_sums(values, numbers, numbers % tasks))


# Worlds in which a rare context scores 1, and their means.
RARE = {
    "5 % score 1, the others .3": (
        lambda size: np.where(GENERATOR.random(size) < 0.05, 1.0, 0.3),
        0.335,
    ),
    "10 % score 1, the others beta(2, 18)": (
        lambda size: np.where(GENERATOR.random(size) < 0.1, 1.0, GENERATOR.beta(2, 18, size)),
        0.19,
    ),
}


def difference(world, truth, tasks, trials):
    rejected, covered, contradictions, widths, values = 0, 0, 0, [], []
    for _ in range(trials):
        values.append(world())
        found = found_in(values[-1], tasks)
        interval = found.interval()
        rejects = found.p_value() < 0.05
        rejected += rejects
        covered += interval.low <= truth <= interval.high
        contradictions += rejects == (interval.low <= 0 <= interval.high)
        widths.append(interval.high - interval.low)
    ideal = 2 * 1.96 * np.std(values) / np.sqrt(len(values[0]))
    flipped = sum(sign_flips(one) < 0.05 for one in values[: trials // 10])
    return (
        f"{100 * rejected / trials:5.1f}" if truth == 0 else "    –",
        f"{100 * covered / trials:6.1f}",
        f"{np.mean(widths) / ideal:6.2f}",
        f"{100 * flipped / (trials // 10):6.1f}" if truth == 0 else "     –",
        f"{contradictions:4}",
    )


def sign_flips(values):
    """Studentised sign-flip permutation test, with the mid-p value."""
    total = np.abs(GENERATOR.choice([-1.0, 1.0], (FLIPS, len(values))) @ values)
    # The studentised statistic grows with the sum, because flips keep the sum of squares.
    observed = abs(values.sum())
    equal = np.abs(total - observed) < 1e-9
    return ((total > observed + 1e-9).sum() + 0.5 * equal.sum() + 0.5) / (FLIPS + 1)


def score(world, contexts, trials):
    shares = []
    for truth in (0.02, 0.98):
        covered = 0
        for _ in range(trials):
            values = np.asarray(world(contexts), dtype=float)
            values = values if truth < 0.5 else 1 - values
            stderr = float(np.std(values, ddof=1) / contexts**0.5)
            interval = score_interval(float(values.mean()), stderr, contexts)
            covered += interval.low <= truth <= interval.high
        shares.append(covered / trials)
    return shares


def covers(world, truth, contexts, answers, trials):
    """Return how often the interval of scores, or of means of several answers, covers the truth."""
    covered = 0
    for _ in range(trials):
        values = np.asarray(world(contexts), dtype=float)
        stderr = float(np.std(values, ddof=1) / contexts**0.5)
        interval = score_interval(
            float(values.mean()), stderr, contexts, answers=contexts * answers
        )
        covered += interval.low <= truth <= interval.high
    return covered / trials


def repeated(world, questions, repeats, trials):
    """Return how often the interval of mean@k covers the mean over all questions, and its width."""
    truth = float(np.mean(world(1_000_000)))
    covered, widths, scores = 0, [], []
    for _ in range(trials):
        means = GENERATOR.binomial(repeats, world(questions)) / repeats
        stderr = float(np.std(means, ddof=1) / questions**0.5)
        scores.append(float(means.mean()))
        interval = score_interval(scores[-1], stderr, questions, answers=questions * repeats)
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
    return covered / trials, np.mean(widths) / (2 * 1.96 * np.std(scores))


def power(tasks, trials):
    """Return the range from a pilot of 1,300 contexts, and the power at its middle."""
    ranges = [
        needed_examples(found_in(flips(1300, 0.03, 0.03)(), tasks), 1300, 0.01) for _ in range(10)
    ]
    low, high = np.mean(ranges, axis=0)
    within = 0
    for number in range(trials):
        size = round((ranges[number % 10][0] * ranges[number % 10][1]) ** 0.5)
        found = found_in(flips(size, 0.03, 0.03)(), tasks)
        within += found.equivalence_p_value(0.01) < 0.05
    return f"{low:8,.0f} to {high:,.0f}", f"{100 * within / trials:6.1f}"


if __name__ == "__main__":
    main()
