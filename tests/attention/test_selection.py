"""Budgets, and selection of exactly that many keys."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sah.attention import Budget, select_top
from sah.attention.selection import (
    order_descending,
    require_fraction,
    require_tokens,
    select_from_threshold,
    select_units,
    sort_descending,
    threshold_by_topk,
)

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
def test_an_invalid_budget_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget(**arguments)


def test_the_error_names_the_masker_and_the_field() -> None:
    with pytest.raises(ValueError, match=r"^Quest: p must be in \(0, 1\], got 2"):
        require_fraction("Quest", "p", 2)
    with pytest.raises(ValueError, match=r"^Quest: tokens must be a whole number"):
        require_tokens("Quest", 0)


@pytest.mark.parametrize("tokens", [1.0, "3", True, None])
def test_a_number_of_tokens_must_be_an_integer(tokens: object) -> None:
    with pytest.raises(ValueError, match="for a share of the visible keys use fraction"):
        require_tokens("Quest", tokens)


@pytest.mark.parametrize("share", ["0.5", True, None])
def test_a_fraction_must_be_a_number(share: object) -> None:
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
    wanted, bound = Budget(fraction=fraction).per_query(inputs)
    assert wanted[0].item() == keys
    assert bound >= wanted.max()


def test_a_budget_is_a_fraction_of_each_query_s_visible_keys(make_inputs: Make) -> None:
    inputs = make_inputs(queries=4, keys=4, padding=(0, 2))
    wanted, _ = Budget(fraction=0.5).per_query(inputs)
    assert wanted.flatten().tolist() == [1, 1, 2, 2, 0, 0, 1, 1]
    wanted, bound = Budget(tokens=3).per_query(inputs)
    assert wanted.flatten().tolist() == [3] * 8
    assert bound == 3
    assert Budget(tokens=300).per_query(inputs)[1] == 4


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


def first_of_stable_sort(scores: Tensor, candidates: Tensor, budget: Tensor) -> Tensor:
    """Select by the definition that every path of `select_top` must equal."""
    scores = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    scores = scores.masked_fill(~candidates, -torch.inf)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    return (rank < budget) & (scores != -torch.inf)


def by_topk(scores: Tensor, candidates: Tensor, budget: Tensor, bound: int) -> Tensor:
    """Select by the path of GPUs, on the CPU."""
    scores = scores.masked_fill(~candidates, -torch.inf)
    return select_from_threshold(scores, threshold_by_topk(scores, budget, bound), budget)


SPECIAL = torch.tensor(
    [torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).max, 0.0, -0.0]
)


def many_ties(shape: tuple[int, ...], kind: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator)
    if kind != "distinct":
        scores = (2 * scores).round()
    if kind == "special":
        place = torch.rand(shape, generator=generator) < 0.4
        scores[place] = SPECIAL[torch.randint(6, (int(place.sum()),), generator=generator)]
    return torch.zeros(shape) if kind == "all_equal" else scores


@pytest.mark.parametrize("select", [select_top, by_topk])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["distinct", "ties", "all_equal", "special"])
@pytest.mark.parametrize("budgets", ["one", "two", "one_per_query"])
def test_every_path_selects_what_a_stable_sort_puts_first(
    budgets: str, kind: str, dtype: torch.dtype, select: Callable[..., Tensor]
) -> None:
    for seed, keys in enumerate((1, 2, 9, 60)):
        shape = (2, 3, 4, keys)
        scores = many_ties(shape, kind, seed).to(dtype)
        generator = torch.Generator().manual_seed(100 + seed)
        for share in (1.0, 0.7, 0.2):
            candidates = torch.rand(shape, generator=generator) < share
            for largest in {0, 1, keys // 3, keys - 1, keys, keys + 3}:
                budget = torch.full((1, 1, 1, 1), largest)
                if budgets == "two":
                    budget = torch.tensor([largest, largest // 2]).view(2, 1, 1, 1)
                elif budgets == "one_per_query":
                    budget = torch.randint(largest + 1, (2, 1, 4, 1), generator=generator)
                selected = select(scores, candidates, budget, min(largest, keys))
                expected = first_of_stable_sort(scores, candidates, budget)
                assert torch.equal(selected, expected)


@pytest.mark.parametrize("kind", ["distinct", "ties", "all_equal", "special"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_and_sort_are_those_of_a_stable_sort(dtype: torch.dtype, kind: str) -> None:
    for keys in (1, 7, 300):
        scores = many_ties((3, 2, keys), kind, keys).to(dtype)
        finite = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        expected = finite.argsort(dim=-1, descending=True, stable=True)
        assert torch.equal(order_descending(scores), expected)
        in_order = sort_descending(scores)
        count = scores.isnan().sum(-1, keepdim=True)
        assert torch.equal(in_order.isnan(), torch.arange(keys) < count)
        known = in_order.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        assert torch.equal(known, finite.gather(-1, expected))


@pytest.mark.parametrize("budget", [[1, 1], [2, 2], [4, 4], [1, 3], [0, 2]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_score_counts_as_the_highest(budget: list[int], dtype: torch.dtype) -> None:
    # So that a broken key is read and shows in the output.
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


@pytest.mark.parametrize("unit", [1, 3, 16])
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "ties"])
def test_units_are_selected_like_keys_that_share_a_score(distinct: bool, unit: int) -> None:
    generator = torch.Generator().manual_seed(unit)
    for keys in (1, 5, 48, 50):
        shape = (2, 3, 4, -(-keys // unit))
        scores = torch.randn(shape, generator=generator)
        if not distinct:
            scores = scores.round()
        scores[torch.rand(shape, generator=generator) < 0.1] = torch.nan
        candidates = torch.rand(2, 3, 4, keys, generator=generator) < 0.6
        budget = torch.randint(keys + 2, (2, 1, 4, 1), generator=generator)
        per_key = scores.repeat_interleave(unit, dim=-1)[..., :keys]
        assert torch.equal(
            select_units(scores, candidates, budget, unit),
            select_top(per_key, candidates, budget, keys),
        )
