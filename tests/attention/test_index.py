"""Key buffers and encoded keys equal plain concatenation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import EncodedKeys, KeyBuffer, KeyIndex
from sah.attention.index import encode_in_chunks


def draw(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (100 * torch.rand(2, 3, count, 4, generator=generator)).to(dtype)


# Sequences of operations: append this many keys, or rewind to this length.
STORIES: dict[str, list[tuple[str, int]]] = {
    "one_by_one": [("append", 1)] * 30,
    "in_leaps": [("append", 9), ("append", 40), ("append", 200)],
    "nothing": [("append", 0), ("append", 3), ("append", 0)],
    "rewound": [("append", 12), ("rewind", 7), ("append", 3), ("rewind", 7), ("append", 50)],
    "rewound_to_nothing": [("append", 2), ("rewind", 0), ("append", 5)],
    "rewound_beyond_the_end": [("rewind", 99), ("append", 4), ("rewind", 99)],
}


@pytest.fixture(params=STORIES)
def story(request: pytest.FixtureRequest) -> list[tuple[str, int]]:
    return STORIES[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int16])
@pytest.mark.parametrize("dim", [2, -1, 0])
@pytest.mark.parametrize("first", [0, 1, 7])
def test_a_buffer_holds_what_concatenation_gives(
    first: int, dim: int, dtype: torch.dtype, story: list[tuple[str, int]]
) -> None:
    expected = draw(first, 0, dtype).transpose(2, dim)
    buffer = KeyBuffer(expected.clone(), dim=dim)
    for number, (what, count) in enumerate(story, start=1):
        if what == "append":
            new = draw(count, number, dtype).transpose(2, dim)
            buffer.append(new)
            expected = torch.cat([expected, new], dim=dim)
        else:
            buffer.rewind(count)
            kept = min(count, expected.shape[dim])
            expected = expected.narrow(dim, 0, kept)
        assert buffer.filled.dtype == dtype
        assert torch.equal(buffer.filled, expected)
        assert buffer.length == expected.shape[dim]
        # Room reserved for later keys does not count.
        assert buffer.nbytes == expected.numel() * expected.element_size()


def test_a_buffer_copies_the_tensors_it_is_given() -> None:
    first, new = draw(5, 0), draw(2, 1)
    expected = torch.cat([first, new], dim=2)
    buffer = KeyBuffer(first, dim=2)
    buffer.append(new)
    first.zero_()
    new.zero_()
    assert torch.equal(buffer.filled, expected)


def test_a_buffer_rarely_copies_its_content() -> None:
    buffer = KeyBuffer(draw(100, 0), dim=2)
    places = set()
    for number in range(400):
        buffer.append(draw(1, number))
        places.add(buffer.filled.data_ptr())
    # Each copy reserves a quarter more: 1.25^8 is 5.96.
    assert len(places) <= 9


def encode(key: Tensor, value: Tensor) -> list[Tensor]:
    """Return codes and a norm per key, [B, G, N, 2] and [B, G, N, 1]."""
    code = torch.stack([key.sum(-1), key.amax(-1) - value.amin(-1)], dim=-1).to(torch.int16)
    return [code, value.norm(dim=-1, keepdim=True)]


@pytest.mark.parametrize("context", [1, 6])
def test_encoded_keys_are_the_codes_of_all_keys(context: int, story: list[tuple[str, int]]) -> None:
    key, value = draw(context, 0), draw(context, 100)
    index = EncodedKeys(encode, key, value, dim=2)
    assert isinstance(index, KeyIndex)
    for number, (what, count) in enumerate(story, start=1):
        if what == "append":
            new_key, new_value = draw(count, number), draw(count, 100 + number)
            index.append(new_key, new_value)
            key, value = torch.cat([key, new_key], dim=2), torch.cat([value, new_value], dim=2)
        else:
            index.rewind(count)
            key, value = key[:, :, :count], value[:, :, :count]
        codes, norms = index.codes
        expected_codes, expected_norms = encode(key, value)
        assert codes.dtype == torch.int16
        assert torch.equal(codes, expected_codes)
        assert torch.equal(norms, expected_norms)
        assert index.length == key.shape[2]
        assert index.nbytes == 2 * 3 * key.shape[2] * (2 * 2 + 4)


@pytest.mark.parametrize("chunk_keys", [1, 3, 4, 11, 12, 100])
@pytest.mark.parametrize("dim", [2, -1])
def test_encoding_in_chunks_equals_encoding_all_keys_at_once(dim: int, chunk_keys: int) -> None:
    sizes: list[int] = []

    def noted(key: Tensor, value: Tensor) -> list[Tensor]:
        sizes.append(key.shape[2])
        return [codes.transpose(2, dim) for codes in encode(key, value)]

    key, value = draw(12, 0), draw(12, 1)
    whole = [codes.transpose(2, dim) for codes in encode(key, value)]
    chunked = encode_in_chunks(noted, key, value, chunk_keys=chunk_keys, dim=dim)
    assert len(chunked) == len(whole)
    for one, other in zip(chunked, whole, strict=True):
        assert torch.equal(one, other)
    assert max(sizes) <= chunk_keys
    assert sum(sizes) == 12


@pytest.mark.parametrize(
    "change",
    [lambda index: index.append(draw(3, 5), draw(3, 6)), lambda index: index.rewind(4)],
    ids=["append", "rewind"],
)
def test_codes_returned_earlier_do_not_change(change: Callable[[Any], None]) -> None:
    index = EncodedKeys(encode, draw(6, 0), draw(6, 1), dim=2)
    before = index.codes[0]
    copy = before.clone()
    change(index)
    assert torch.equal(before, copy)
