"""Gathering of selected keys, for every memory layout of the keys."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from device_path import as_on_a_device
from torch import Tensor
from torch.testing import assert_close

from sah.attention import AttentionMask, SelectedKeys, dense_attention, weighted_attention

Make = Callable[..., Any]


def plain(tensor: Tensor) -> Tensor:
    return tensor


def in_a_longer_buffer(tensor: Tensor) -> Tensor:
    """As in a cache with room for later keys."""
    longer = torch.full((*tensor.shape[:2], tensor.shape[2] + 7, tensor.shape[3]), torch.nan)
    longer[:, :, : tensor.shape[2]] = tensor
    return longer.to(tensor.dtype)[:, :, : tensor.shape[2]]


def heads_innermost(tensor: Tensor) -> Tensor:
    """As the projection returns them: [B, K, G, D]."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def part_of_wider_vectors(tensor: Tensor) -> Tensor:
    """Vectors do not start at multiples of their length."""
    return torch.cat([tensor, tensor[..., :3]], dim=-1)[..., : tensor.shape[-1]]


def dimensions_swapped(tensor: Tensor) -> Tensor:
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


layouts = pytest.mark.parametrize(
    "layout",
    [plain, in_a_longer_buffer, heads_innermost, part_of_wider_vectors, dimensions_swapped],
)


@pytest.mark.parametrize("bound", [None, 15, 40])
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 2])
def test_products_and_sums_are_those_of_the_selected_keys(
    layout: Callable[[Tensor], Tensor], dtype: torch.dtype, batch: int, bound: int | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(batch, heads, count, 8, generator=generator).to(dtype)
        for heads, count in ((6, 2), (3, 20), (3, 20))
    )
    selected = torch.rand(batch, 6, 2, 20, generator=generator) < 0.3
    with nullcontext() if bound is None else as_on_a_device():
        keys = SelectedKeys.of(selected, selected.sum(-1), bound)
    head_key, head_value = (item.float().repeat_interleave(2, dim=1) for item in (key, value))

    expected = (query.float() @ head_key.transpose(2, 3))[selected]
    products = keys.products(query, layout(key))
    assert products.dtype == torch.float32
    assert_close(products[keys.valid], expected)

    weight = torch.rand(selected.shape, generator=generator) * selected
    given = weight.gather(-1, keys.position).where(keys.valid, 0.0)
    assert_close(keys.weighted_sum(given, layout(value)), weight @ head_value)


def test_positions_are_in_order_and_short_rows_are_padded_at_the_end() -> None:
    selected = torch.zeros(1, 3, 1, 6, dtype=torch.bool)
    selected[0, 0, 0, [1, 4, 5]] = selected[0, 2, 0, 2] = True
    keys = SelectedKeys.of(selected, selected.sum(-1))
    assert keys.position[0, :, 0].tolist() == [[1, 4, 5], [0, 0, 0], [2, 0, 0]]
    assert keys.valid[0, :, 0].tolist() == [[True] * 3, [False] * 3, [True, False, False]]


def test_on_a_device_rows_are_padded_to_the_bound_or_to_all_keys() -> None:
    selected = torch.zeros(2, 1, 1, 6, dtype=torch.bool)
    selected[0, 0, 0, [1, 4, 5]] = selected[1, 0, 0, 2] = True
    for bound, width in ((3, 3), (5, 5), (9, 6), (None, 6)):
        with as_on_a_device():
            keys = SelectedKeys.of(selected, selected.sum(-1), bound)
        padding = [0] * (width - 3)
        assert keys.position[:, 0, 0].tolist() == [[1, 4, 5, *padding], [2, 0, 0, *padding]]
        assert keys.valid.sum(-1).flatten().tolist() == [3, 1]
        assert keys.valid[0, 0, 0, :3].all()
        assert keys.valid[1, 0, 0, 0]


def test_on_a_device_more_selected_keys_than_the_bound_are_an_error() -> None:
    selected = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    with as_on_a_device(), pytest.raises(RuntimeError, match="out of bounds"):
        SelectedKeys.of(selected, selected.sum(-1), 5)


@pytest.mark.parametrize(("share", "reads_all"), [(0.02, False), (0.9, True)])
def test_a_decode_step_reads_all_keys_only_if_most_are_selected_and_gives_the_same(
    share: float, reads_all: bool, make_inputs: Make, random_mask: Make
) -> None:
    inputs, again = make_inputs(keys=6000), make_inputs(keys=6000)
    mask = random_mask(inputs, share=share, weighted=True)
    output = weighted_attention(inputs, mask)
    assert ("dot_products" in vars(inputs)) is reads_all
    assert_close(output, dense_attention(again, mask), atol=3e-6, rtol=3e-6)


@pytest.mark.parametrize(
    ("bound", "batch", "reads_all"),
    [(300, 1, False), (None, 1, True), (6000, 1, True), (2200, 1, True), (2200, 2, False)],
)
def test_on_a_device_a_decode_step_gathers_if_the_bound_is_low_for_the_whole_batch(
    bound: int | None, batch: int, reads_all: bool, make_inputs: Make, random_mask: Make
) -> None:
    # Reads 4 · bound rows per context of 12,000, at a fixed cost of 4,096 per call.
    inputs, again = (make_inputs(keys=6000, padding=[0] * batch) for _ in range(2))
    mask = replace(random_mask(inputs, share=0.02, weighted=True), at_most=bound)
    with as_on_a_device():
        output = weighted_attention(inputs, mask)
    assert ("dot_products" in vars(inputs)) is reads_all
    assert_close(output, dense_attention(again, mask), atol=3e-6, rtol=3e-6)


def test_known_products_are_not_computed_again(make_inputs: Make) -> None:
    inputs = make_inputs(keys=50)
    known = inputs.dot_products
    inputs.key.fill_(torch.nan)
    mask = AttentionMask.empty(inputs).add((torch.arange(50) % 7 == 0).view(1, 1, 1, 50))
    assert torch.equal(inputs.dot_products_at(mask.selected_keys), known[..., ::7])
