"""Quest against its definition in loops: pages, bounds, budgets, the page being filled."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, select_top
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.quest import PageBounds, Quest

Make = Callable[..., Any]


def bound(query: Sequence[float], page: Sequence[Sequence[float]]) -> float:
    """Return Σ_d max(q_d·min_d, q_d·max_d) over the keys of a page."""
    total = 0.0
    for q, channel in zip(query, zip(*page, strict=True), strict=True):
        total += max(q * min(channel), q * max(channel))
    return total


def best_keys(
    query: Tensor, keys: Tensor, candidates: list[int], page_size: int, budget: int, own: int
) -> list[int]:
    """Return the candidates of the best pages, key by key, until the budget is spent.

    The page of the query's own key comes first.
    """
    pages = [range(start, start + page_size) for start in range(0, len(keys), page_size)]
    content, vector = keys.double().tolist(), query.double().tolist()
    ranked = sorted(
        pages,
        key=lambda page: (own in page, bound(vector, content[page.start : page.stop])),
        reverse=True,
    )
    return sorted([key for page in ranked for key in page if key in candidates][:budget])


def check(inputs: AttentionInputs, before: AttentionMask, quest: Quest) -> None:
    mask = quest(inputs, before)
    for b, h, q in torch.cartesian_prod(*map(torch.arange, mask.selected.shape[:3])).tolist():
        visible = inputs.visible[b, 0, q]
        candidates = (visible & ~before.selected[b, h, q]).nonzero().flatten().tolist()
        budget = quest.tokens or math.ceil(int(visible.sum()) * (quest.fraction or 0) - 1e-9)
        expected = best_keys(
            inputs.query[b, h, q],
            inputs.key[b, h // inputs.group_size],
            candidates,
            quest.page_size,
            budget,
            inputs.first_position + q,
        )
        added = mask.selected[b, h, q] & ~before.selected[b, h, q]
        assert added.nonzero().flatten().tolist() == expected


@pytest.mark.parametrize("keys", [1, 7, 24, 43])
@pytest.mark.parametrize("page_size", [1, 4, 5, 16])
@pytest.mark.parametrize("padding", [(0,), (0, 3)], ids=["plain", "padded"])
def test_adds_the_keys_of_the_pages_with_the_highest_bounds(
    keys: int, page_size: int, padding: tuple[int, ...], make_inputs: Make, some_mask: Make
) -> None:
    for queries in {1, min(5, keys)}:
        inputs = make_inputs(keys=keys, queries=queries, padding=padding, seed=keys)
        for quest in (
            Quest(tokens=page_size, page_size=page_size),
            # Not a multiple of the page size: the last page is cut.
            Quest(tokens=2 * page_size + 1, page_size=page_size),
            Quest(fraction=0.3, page_size=page_size),
        ):
            check(inputs, AttentionMask.empty(inputs), quest)
            check(inputs, some_mask(inputs), quest)


def test_pages_of_one_key_equal_the_oracle(make_inputs: Make, some_mask: Make) -> None:
    inputs = make_inputs(keys=60, queries=5)
    # With its own key selected before, each query ranks the others.
    mask = Local(tokens=1)(inputs, some_mask(inputs))
    quest = Quest(tokens=9, page_size=1)(inputs, mask)
    assert torch.equal(quest.selected, OracleTopK(tokens=9)(inputs, mask).selected)


@pytest.mark.parametrize("options", [{}, {"share": "group"}, {"unit": 32}, {"page_size": 4}])
def test_every_query_reads_the_keys_so_far_of_the_page_being_filled(
    options: dict[str, Any], make_inputs: Make
) -> None:
    inputs = make_inputs(keys=200, queries=40)
    inputs.key[:] = inputs.key.sort(dim=2, descending=True).values  # the last pages score least
    inputs.query[:] = inputs.query.abs()
    mask = Quest(tokens=32, **options)(inputs, AttentionMask.empty(inputs))
    for q in range(40):
        position = 160 + q
        start = position - position % options.get("page_size", 16)
        assert mask.selected[:, :, q, start : position + 1].all()
        assert (mask.selected_count[:, :, q] == 32).all()


def test_selects_what_its_scores_say(make_inputs: Make, some_mask: Make) -> None:
    inputs = make_inputs(queries=3, padding=(0, 31))
    quest = Quest(fraction=0.2, page_size=5)
    for mask in (AttentionMask.empty(inputs), some_mask(inputs)):
        budget, bound = quest.per_query(inputs)
        expected = select_top(quest.scores(inputs), mask.candidates, budget, bound)
        assert torch.equal(quest.select(inputs, mask), expected)


def test_a_budget_of_less_than_a_page_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens=15 is less than one page of page_size=16"):
        Quest(tokens=15)
    Quest(tokens=16)
    Quest(tokens=15, page_size=15)


@pytest.mark.parametrize("page_size", [0, -4, True])
def test_a_page_without_keys_is_refused(page_size: int) -> None:
    with pytest.raises(ValueError, match="page_size must be at least 1"):
        Quest(tokens=16, page_size=page_size)


def assert_bounds(index: PageBounds, keys: Tensor, page_size: int) -> None:
    assert index.length == keys.shape[2]
    pages = [keys[:, :, s : s + page_size] for s in range(0, keys.shape[2], page_size)]
    assert torch.equal(index.lowest, torch.stack([page.amin(2) for page in pages], dim=2))
    assert torch.equal(index.highest, torch.stack([page.amax(2) for page in pages], dim=2))
    assert index.nbytes == 2 * len(pages) * keys[:, :, 0].numel() * keys.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [1, 3, 11])
def test_bounds_equal_freshly_built_ones_at_every_length(step: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    context, first, second = (
        torch.randn(2, 2, n, 3, generator=generator).to(dtype) for n in (13, 22, 22)
    )
    for length in range(1, 14):
        index = PageBounds(context[:, :, :length], context[:, :, :length], page_size=4)
        assert_bounds(index, context[:, :, :length], 4)
        for answer in (first, second, -first):
            keys = torch.cat([context[:, :, :length], answer], dim=2)
            index.rewind(length)
            assert index.length in (length, length // 4 * 4)
            # Context keys that the rewind dropped are appended again.
            for stop in range(length + step, keys.shape[2] + 1, step):
                new = keys[:, :, index.length : stop]
                index.append(new, new)
                assert_bounds(index, keys[:, :, :stop], 4)
