"""Quantisation against a loop over single groups."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sah.attention.eviction.kept import KeptKeys
from sah.rewriters.kivi import KIVI
from sah.rewriters.packing import rounded
from sah.rewriters.quantised import Quantised

ROWS = torch.randn(1, 2, 75, 20, generator=torch.Generator().manual_seed(0))
CHOSEN = torch.arange(75).expand(1, 2, -1) < torch.tensor([70, 33]).view(1, 2, 1)


def groups(along: str, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Return the places of each group's chosen values: head, tokens and channels."""
    for head in range(2):
        count = int(CHOSEN[0, head].sum())
        if along == "tokens":
            for start, channel in product(range(0, count, size), range(20)):
                yield head, slice(start, min(start + size, count)), slice(channel, channel + 1)
        else:
            for token, start in product(range(count), range(0, 20, size)):
                yield head, slice(token, token + 1), slice(start, start + size)


@pytest.mark.parametrize("along", ["tokens", "channels"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_each_group_is_rounded_between_its_minimum_and_maximum(bits: int, along: str) -> None:
    expected, size = ROWS.clone(), 0
    for head, tokens, channels in groups(along, 16):
        values = ROWS[0, head, tokens, channels]
        levels = torch.linspace(float(values.min()), float(values.max()), 2**bits)
        nearest = (values.unsqueeze(-1) - levels).abs().argmin(-1)
        expected[0, head, tokens, channels] = levels[nearest]
        size += values.numel() * bits + 2 * 32
    found, packed_bytes = rounded(ROWS, CHOSEN, bits=bits, group=16, along=along)  # type: ignore[arg-type]
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert packed_bytes == size / 8
    assert torch.equal(found[~CHOSEN], ROWS[~CHOSEN])


@pytest.mark.parametrize("along", ["tokens", "channels"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_no_value_moves_by_more_than_half_a_step(bits: int, along: str) -> None:
    found, _ = rounded(ROWS, CHOSEN, bits=bits, group=16, along=along)  # type: ignore[arg-type]
    for head, tokens, channels in groups(along, 16):
        values = ROWS[0, head, tokens, channels]
        step = (values.max() - values.min()) / (2**bits - 1)
        moved = (found[0, head, tokens, channels] - values).abs().max()
        assert moved <= step / 2 + 1e-6


def test_equal_values_stay_exact() -> None:
    rows = torch.full((1, 2, 75, 20), 0.3)
    found, _ = rounded(rows, CHOSEN, bits=2, group=16, along="tokens")
    assert torch.equal(found, rows)


def test_minimum_and_step_have_the_type_of_the_rows() -> None:
    rows = torch.tensor([[1.001, 2.003, 3.007, 3.999]], dtype=torch.bfloat16).view(1, 1, 4, 1)
    every = torch.ones(1, 1, 4, dtype=torch.bool)
    found, packed_bytes = rounded(rows, every, bits=2, group=4, along="tokens")
    assert found.dtype == torch.bfloat16
    assert found.flatten().tolist() == [1, 2, 3, 4]
    assert packed_bytes == 1 + 4


def whole(layer: Any) -> KeptKeys:
    marks = torch.ones(layer.key.shape[:3], dtype=torch.bool)
    return KeptKeys.of(marks, layer.key, layer.value)


def test_kivi_groups_keys_by_channel_and_values_by_token(
    made_layer: Callable[..., Any],
) -> None:
    layer = made_layer(ROWS[0], ROWS[0].flip(1))
    found = KIVI(bits=2, group=8, residual=5).at_context(layer, whole(layer))
    old = torch.ones(1, 2, 75, dtype=torch.bool)
    old[..., 70:] = False
    key, key_bytes = rounded(layer.key, old, bits=2, group=8, along="tokens")
    value, value_bytes = rounded(layer.value, old, bits=2, group=8, along="channels")
    assert torch.equal(found.key, key)
    assert torch.equal(found.value, value)
    assert torch.equal(found.key[:, :, 70:], layer.key[:, :, 70:])
    assert not torch.isclose(found.key[:, :, :70], layer.key[:, :, :70]).all(2).any()
    exact = 2 * 5 * 2 * 20 * 4
    assert found.packed_bytes == key_bytes + value_bytes + exact
    # 70 tokens of 20 channels in 2 heads; 9 groups of tokens, 3 groups of channels.
    assert key_bytes == 2 * (70 * 20 * 2 // 8 + 9 * 20 * 8)
    assert value_bytes == 2 * (70 * 20 * 2 // 8 + 70 * 3 * 8)


def test_kivi_keeps_a_context_within_the_residual_exact(made_layer: Callable[..., Any]) -> None:
    layer = made_layer(ROWS[0])
    found = KIVI().at_context(layer, whole(layer))
    assert torch.equal(found.key, layer.key)
    assert torch.equal(found.value, layer.value)
    assert found.packed_bytes == layer.key.nbytes + layer.value.nbytes


def test_the_residual_of_kivi_is_counted_in_tokens_of_the_context(
    made_layer: Callable[..., Any],
) -> None:
    """After an eviction, heads have different numbers of recent keys, and padding."""
    layer = made_layer(ROWS[0])
    alive = torch.zeros(1, 2, 75, dtype=torch.bool)
    alive[0, 0, ::2] = True
    alive[0, 1, :40] = True
    kept = KeptKeys.of(alive, layer.key, layer.value)
    found = KIVI(residual=12).at_context(layer, kept)
    before = kept.rows_of(layer.key)
    same = torch.isclose(found.key, before).all(-1) & kept.occupied
    assert torch.equal(kept.position[same], torch.tensor([64, 66, 68, 70, 72, 74]))
    without_padding = [
        KIVI(residual=12).at_context(
            one, KeptKeys.of(alive[:, head : head + 1], one.key, one.value)
        )
        for head, one in enumerate(made_layer(ROWS[0, head : head + 1]) for head in range(2))
    ]
    assert found.packed_bytes == sum(one.packed_bytes for one in without_padding)
    for head, one in enumerate(without_padding):
        assert_close(found.key[:, head : head + 1][:, :, : one.key.shape[2]], one.key)


def test_quantised_groups_keys_and_values_by_token(made_layer: Callable[..., Any]) -> None:
    layer = made_layer(ROWS[0], ROWS[0].flip(1))
    found = Quantised(bits=4).at_context(layer, whole(layer))

    def expected(rows: Tensor) -> Tensor:
        low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
        return low + ((rows - low) / (high - low) * 15).round() * (high - low) / 15

    assert_close(found.key, expected(layer.key))
    assert_close(found.value, expected(layer.value))
    assert found.packed_bytes == 2 * 2 * 75 * (20 * 4 // 8 + 8)
