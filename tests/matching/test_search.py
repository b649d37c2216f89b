"""The search ends at a value that measures as asked, or says that there is none."""

import math

import pytest

from sah.matching.search import MOST_EVALUATIONS, Search


def searched(function, target, *, tolerance=0.02, first=0.1, default=0.1, least=1e-4, most=1.0):
    search = Search(
        target=target,
        tolerance=tolerance,
        first=first,
        default=default,
        least=least,
        most=most,
    )
    while (value := search.propose()) is not None:
        assert least <= value <= most
        assert value not in {**search.measured, **search.refused}
        try:
            search.measured[value] = function(value)
        except ValueError as error:
            search.refused[value] = str(error)
    return search


RISING = {
    "proportional": lambda x: x,
    "with keys that are always read": lambda x: min(1.0, 0.06 + 1.7 * x),
    "concave": lambda x: x**0.3,
    "convex": lambda x: x**4,
    "in steps of a key in 800": lambda x: math.floor(800 * x) / 800,
    "steep": lambda x: 1 / (1 + math.exp(-60 * (x - 0.7))),
}


@pytest.mark.parametrize("target", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("name", RISING)
def test_meets_a_target_within_the_tolerance(name, target):
    search = searched(RISING[name], target, first=target)
    assert search.is_met
    assert RISING[name](search.best) == pytest.approx(target, rel=0.02)


@pytest.mark.parametrize("name", RISING)
def test_the_direction_need_not_be_known(name):
    search = searched(lambda x: 1 - RISING[name](x), 0.4)
    assert search.is_met
    assert 1 - RISING[name](search.best) == pytest.approx(0.4, rel=0.02)


def test_a_smooth_measurement_takes_few_evaluations():
    assert searched(RISING["with keys that are always read"], 0.1, first=0.1).evaluations <= 4


def test_whole_numbers_stay_whole():
    search = searched(
        lambda n: min(1, (n + 4) / 900), 0.1, first=64, default=64, least=1, most=1024
    )
    assert search.is_met
    assert isinstance(search.best, int)


def test_an_unreachable_target_ends_after_both_ends():
    search = searched(lambda x: 1.06 + 0.1 * x, 0.1)
    assert not search.is_met
    assert {1e-4, 1.0} <= search.measured.keys()
    assert search.evaluations <= 5


def test_a_flat_measurement_ends_after_both_ends():
    search = searched(lambda x: 0.5, 0.1)
    assert not search.is_met
    assert {1e-4, 1.0} <= search.measured.keys()


def test_a_target_between_two_neighbouring_whole_numbers_is_not_met():
    search = searched(lambda n: n / 10, 0.25, first=6, default=6, least=1, most=10)
    assert not search.is_met
    assert {2, 3} <= search.measured.keys()
    assert search.evaluations < MOST_EVALUATIONS


def test_values_that_are_refused_bound_the_search():
    def at_least_a_page(fraction):
        if fraction < 0.02:
            raise ValueError("less than a page")
        return 0.05 + fraction

    search = searched(at_least_a_page, 0.09, first=0.01, default=0.5)
    assert search.is_met
    assert at_least_a_page(search.best) == pytest.approx(0.09, rel=0.02)
    unreachable = searched(at_least_a_page, 0.06, first=0.1)
    assert not unreachable.is_met
    assert "less than a page" in unreachable.refused.values()
    assert unreachable.evaluations <= MOST_EVALUATIONS


def test_nothing_can_be_measured():
    def refuse(value):
        raise ValueError("never")

    search = searched(refuse, 0.1)
    assert search.best is None
    assert not search.is_met
