from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sah.benchmarks.sampling import limit_examples

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)
many = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def interleaved(example, sizes):
    """Make examples of tasks of these sizes, not sorted by task."""
    made = [example(f"task-{t}", n) for t, size in enumerate(sizes) for n in range(size)]
    return sorted(made, key=lambda item: item.id.rpartition("-")[::-1])


@given(sizes=SIZES, limit=st.integers(1, 350), seed=st.integers(0, 5))
@many
def test_draws_from_all_tasks_in_proportion_and_keeps_the_order(example, sizes, limit, seed):
    examples = interleaved(example, sizes)
    kept = limit_examples(examples, limit, seed)
    assert len(kept) == min(limit, len(examples))
    positions = [examples.index(item) for item in kept]
    assert positions == sorted(set(positions))
    counts = Counter(item.task for item in kept)
    for number, size in enumerate(sizes):
        assert abs(counts[f"task-{number}"] - len(kept) * size / len(examples)) < 1


@given(sizes=SIZES, limit=st.integers(1, 20), seed=st.integers(0, 5))
@many
def test_the_same_seed_draws_the_same_examples(example, sizes, limit, seed):
    examples = interleaved(example, sizes)
    assert limit_examples(examples, limit, seed) == limit_examples(examples, limit, seed)


def test_draws_at_random_instead_of_taking_the_first(example):
    examples = [example("task", number) for number in range(100)]
    drawn = [limit_examples(examples, 10, seed) for seed in range(3)]
    assert all(kept != examples[:10] for kept in drawn)
    assert drawn[0] != drawn[1] != drawn[2]
    # Over many seeds every example is drawn.
    ever = {item.id for seed in range(200) for item in limit_examples(examples, 10, seed)}
    assert len(ever) == 100


def test_a_draw_from_one_task_does_not_depend_on_the_other_tasks(example):
    def drawn(*others):
        examples = [example(task, n) for task in ("a", *others) for n in range(10)]
        kept = limit_examples(examples, 5 * (1 + len(others)), seed=0)
        return [item.id for item in kept if item.task == "a"]

    assert drawn() == drawn("b") == drawn("b", "c")


@pytest.mark.parametrize("limit", [None, 3, 4, 100])
def test_no_limit_or_a_large_one_keeps_all_examples(example, limit):
    examples = [example("task", number) for number in range(3)]
    assert limit_examples(examples, limit, 0) == examples
