"""Which cells are bundled into one job, and into how many jobs."""

import itertools
from collections import deque
from pathlib import Path

import pytest

from sah.launching.bundles import Bundle, bundle_cells, group_by_model, take_next
from sah.launching.plan import Cell
from sah.results.identity import shared_key


def cells(*keys: str | None, bundle_max: int | None = None) -> list[Cell]:
    return [
        Cell(
            number=number,
            overrides=(),
            directory=Path(str(number)),
            packed_config=None,
            shared_key=key,
            bundle_max=bundle_max,
        )
        for number, key in enumerate(keys)
    ]


def numbers(made: list[Cell], slots: int = 1) -> list[list[int]]:
    return [[cell.number for cell in bundle.cells] for bundle in bundle_cells(made, slots)]


def test_cells_of_one_key_share_a_job_in_the_order_of_the_sweep():
    assert numbers(cells("a", "b", "a", "b", "a")) == [[0, 2, 4], [1, 3]]


def test_every_cell_without_a_key_has_its_own_job():
    assert numbers(cells(None, "a", None, "a")) == [[0], [1, 3], [2]]


@pytest.mark.parametrize(
    ("most", "sizes"), [(None, [7]), (7, [7]), (4, [4, 3]), (3, [3, 2, 2]), (1, [1] * 7)]
)
def test_bundle_max_limits_the_arms_of_a_job_and_divides_them_evenly(most, sizes):
    found = numbers(cells(*"aaaaaaa", bundle_max=most))
    assert [len(bundle) for bundle in found] == sizes
    assert list(itertools.chain(*found)) == list(range(7))


@pytest.mark.parametrize(
    ("slots", "sizes"),
    [(1, [4, 2]), (2, [4, 2]), (3, [2, 2, 2]), (4, [1, 1, 2, 2]), (6, [1] * 6), (9, [1] * 6)],
)
def test_the_largest_bundle_is_halved_until_every_slot_has_work(slots, sizes):
    found = numbers(cells(*"aaaabb"), slots)
    assert [len(bundle) for bundle in found] == sizes
    assert sorted(itertools.chain(*found)) == list(range(6))


def test_without_cells_there_are_no_jobs():
    assert bundle_cells([], 4) == []


@pytest.mark.parametrize(
    ("override", "together"),
    [
        ("attention=dense", True),
        ("sparse_attention.maskers.sink.tokens=9", True),
        ("metric_logging=full", True),
        ("seed=1", False),
        ("model.layers=4", False),
        ("benchmark.limit=2", False),
        ("protocol=question_dense", False),
        ("generation.temperature=1", False),
        ("timeout_minutes=5", False),
        ("resume=false", False),
    ],
)
def test_the_arms_of_a_job_differ_only_in_attention_and_metric_logging(compose, override, together):
    base = ("model=tiny", "benchmark=mock")
    same = shared_key(compose(*base)) == shared_key(compose(*base, override))
    assert same == together


def of_models(*models: str) -> list[Bundle]:
    return [
        Bundle(
            cells=(
                Cell(
                    number=number,
                    overrides=(),
                    directory=Path(str(number)),
                    packed_config=None,
                    model_key=model,
                ),
            )
        )
        for number, model in enumerate(models)
    ]


def test_the_next_bundle_of_a_process_is_the_first_that_waits_for_its_model():
    waiting = deque(of_models("a", "b", "a", "b"))
    taken = [take_next(waiting, "b") for _ in range(3)]
    assert [bundle and bundle.number for bundle in taken] == [1, 3, None]
    assert [bundle.number for bundle in waiting] == [0, 2]


def test_a_slurm_job_has_bundles_of_one_model_in_the_order_of_the_sweep():
    groups = group_by_model(of_models("a", "b", "a", "a", "b", "a"), 3)
    assert [[bundle.number for bundle in group] for group in groups] == [[0, 2, 3], [1, 4], [5]]
    assert len(group_by_model(of_models("a", "a"), 1)) == 2
