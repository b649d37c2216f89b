"""Fused gathering, against its definitions by plain indexing."""

import pytest
import torch
from torch.testing import assert_close

from sah.attention.gather_fused import products_with_rows, true_positions, weighted_sum_of_rows


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_positions_are_those_of_nonzero(share: float) -> None:
    flags = torch.rand(200, generator=torch.Generator().manual_seed(0)) < share
    assert torch.equal(true_positions(flags), flags.nonzero().squeeze(-1))


@pytest.mark.parametrize(("lists", "length"), [(1, 1), (6, 1), (6, 13)])
def test_products_and_sums_are_those_of_copied_rows(lists: int, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    matrix = torch.randn(30, 8, generator=generator)
    query = torch.randn(lists, 8, generator=generator)
    weight = torch.rand(lists, length, generator=generator)
    # Ascending and distinct, as positions of selected keys are.
    noise = torch.rand(lists, 30, generator=generator)
    rows = noise.argsort(-1)[:, :length].sort(-1).values
    copied = matrix[rows]
    products = products_with_rows(matrix, rows, query)
    assert_close(products, (copied @ query.unsqueeze(-1)).flatten())
    sums = weighted_sum_of_rows(matrix, rows, weight)
    assert_close(sums, (weight.unsqueeze(1) @ copied).squeeze(1))


def test_rows_that_are_not_selected_may_hold_nan() -> None:
    matrix = torch.ones(5, 4)
    matrix[2] = torch.nan
    rows = torch.tensor([[0, 1, 4], [1, 3, 4]])
    assert torch.equal(products_with_rows(matrix, rows, torch.ones(2, 4)), torch.full((6,), 4.0))
    sums = weighted_sum_of_rows(matrix, rows, torch.ones(2, 3))
    assert torch.equal(sums, torch.full((2, 4), 3.0))
