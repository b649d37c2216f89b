"""Budgets: what is asked for, and that exactly so much is picked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.attention import Budget, select_top
from sah.attention.selection import require_fraction, require_tokens

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "exactly one of tokens and fraction"),
        ({"tokens": 3, "fraction": 0.5}, "exactly one of tokens and fraction"),
        ({"tokens": 0}, "at least 1, got 0"),
        ({"tokens": -2}, "at least 1, got -2"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], got 0.0"),
        ({"fraction": 1.5}, "got 1.5"),
        ({"fraction": -0.1}, "got -0.1"),
        ({"fraction": float("nan")}, "got nan"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget(**arguments)


def test_the_refusal_names_the_masker_and_the_field() -> None:
    with pytest.raises(ValueError, match=r"^Quest: p must be in \(0, 1\], got 2"):
        require_fraction("Quest", "p", 2)
    with pytest.raises(ValueError, match=r"^Quest: tokens must be a whole number"):
        require_tokens("Quest", 0)


@pytest.mark.parametrize("tokens", [1.0, "3", True, None])
def test_a_number_of_tokens_is_a_whole_number_and_nothing_else(tokens: object) -> None:
    with pytest.raises(ValueError, match="for a share of the visible keys use fraction"):
        require_tokens("Quest", tokens)


@pytest.mark.parametrize("share", ["0.5", True, None])
def test_a_share_is_a_number_and_nothing_else(share: object) -> None:
    with pytest.raises(ValueError, match=f"got {share!r}"):
        require_fraction("Quest", "p", share)


@pytest.mark.parametrize(
    ("fraction", "visible", "keys"),
    [
        (0.1, 30, 3),  # 0.1 * 30 is 3.0000000000000004
        (0.1, 31, 4),
        (0.1, 1, 1),
        (0.1, 10, 1),
        (0.1, 1000, 100),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996
        (0.5, 3, 2),
        (1.0, 17, 17),
        (0.001, 50, 1),
    ],
)
def test_a_fraction_of_the_visible_keys_is_rounded_up(
    fraction: float, visible: int, keys: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=visible + 5, padding=(5, 0))
    wanted, bound = Budget(fraction=fraction).keys(inputs)
    assert wanted[0].item() == keys
    assert bound >= wanted.max()


def test_every_query_has_a_budget_of_its_own_visible_keys(make_inputs: Make) -> None:
    inputs = make_inputs(queries=4, keys=4, padding=(0, 2))
    wanted, _ = Budget(fraction=0.5).keys(inputs)
    assert wanted.flatten().tolist() == [1, 1, 2, 2, 0, 0, 1, 1]
    wanted, bound = Budget(tokens=3).keys(inputs)
    assert wanted.flatten().tolist() == [3] * 8
    assert bound == 3
    assert Budget(tokens=300).keys(inputs)[1] == 4


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    scores=st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True),
    candidates=st.lists(st.booleans(), min_size=12, max_size=12),
    budget=st.integers(0, 14),
)
def test_the_best_candidates_are_selected_and_all_if_there_are_fewer(
    scores: list[int], candidates: list[bool], budget: int
) -> None:
    keys = len(scores)
    allowed = [k for k in range(keys) if candidates[k]]
    expected = set(sorted(allowed, key=lambda k: scores[k], reverse=True)[:budget])
    selected = select_top(
        torch.tensor(scores, dtype=torch.float).view(1, 1, 1, keys),
        torch.tensor(candidates[:keys]).view(1, 1, 1, keys),
        torch.tensor(budget).view(1, 1, 1, 1),
        min(budget, keys),
    )
    assert {k for k in range(keys) if selected[0, 0, 0, k]} == expected


def test_equal_scores_do_not_change_how_many_are_selected() -> None:
    selected = select_top(
        torch.zeros(1, 1, 1, 9),
        torch.ones(1, 2, 3, 9, dtype=torch.bool),
        torch.tensor([1, 4, 9]).view(1, 1, 3, 1),
        9,
    )
    assert selected.sum(-1).tolist() == [[[1, 4, 9], [1, 4, 9]]]


@pytest.mark.parametrize("budget", [[1, 1], [2, 2], [4, 4], [1, 3], [0, 2]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_a_number_counts_as_the_best(budget: list[int], dtype: torch.dtype) -> None:
    # So that a broken key is read, and the output tells of it.
    scores = torch.tensor([[1.0, torch.nan, 3.0, 2.0], [1.0, 5.0, 3.0, torch.nan]], dtype=dtype)
    candidates = torch.tensor([[True, True, True, True], [True, True, True, False]])
    selected = select_top(
        scores.view(1, 1, 2, 4),
        candidates.view(1, 1, 2, 4),
        torch.tensor(budget).view(1, 1, 2, 1),
        max(budget),
    )
    best_first = [[1, 2, 3, 0], [1, 2, 0]]
    for row, wanted, order in zip(selected[0, 0].tolist(), budget, best_first, strict=True):
        assert [key for key in range(4) if row[key]] == sorted(order[:wanted])
