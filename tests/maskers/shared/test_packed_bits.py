"""Packed codes: bits and nibbles are where they should be, and arithmetic equals the unpacked."""

import random

import pytest
import torch
from torch.testing import assert_close

from sah.maskers.shared.packed_bits import (
    count_ones,
    pack_bits,
    pack_nibbles,
    products_with_nibbles,
)

EXTREME = [0, 1, -1, -2, 2**31 - 1, -(2**31), -(2**31) + 1, 0x55555555, -0x55555556, 2**30, 255]


def test_ones_are_counted_as_python_counts_them() -> None:
    generator = random.Random(0)
    words = EXTREME + [1 << bit for bit in range(31)]
    words += [generator.randrange(-(2**31), 2**31) for _ in range(5000)]
    given = torch.tensor(words, dtype=torch.int32)
    counted = count_ones(given)
    assert counted.dtype == torch.int32
    assert counted.tolist() == [(word % 2**32).bit_count() for word in words]
    assert torch.equal(counted, (given.unsqueeze(-1) >> torch.arange(32) & 1).sum(-1).int())


@pytest.mark.parametrize("bits", [1, 31, 32, 33, 64, 100])
def test_bits_are_packed_32_to_a_word_and_the_rest_is_zero(bits: int) -> None:
    generator = random.Random(bits)
    rows = [[generator.random() < 0.5 for _ in range(bits)] for _ in range(50)]
    rows += [[True] * bits, [False] * bits]
    words = pack_bits(torch.tensor(rows))
    assert words.dtype == torch.int32
    assert words.shape == (52, -(-bits // 32))
    for row, packed_row in zip(rows, words.tolist(), strict=True):
        number = sum(word % 2**32 << 32 * place for place, word in enumerate(packed_row))
        assert number == sum(1 << place for place, bit in enumerate(row) if bit)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_products_with_packed_nibbles_are_those_of_the_codes(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    codes = torch.randint(16, (2, 3, count, 40), generator=generator).to(torch.uint8)
    query = torch.randn(2, 3, 4, count, generator=generator)
    packed = pack_nibbles(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (2, 3, -(-count // 2), 40)
    unpacked = torch.stack([packed & 15, packed >> 4], dim=3).flatten(2, 3)[:, :, :count]
    assert torch.equal(unpacked, codes)
    assert_close(products_with_nibbles(query, packed), query @ codes.float(), atol=1e-4, rtol=1e-5)
