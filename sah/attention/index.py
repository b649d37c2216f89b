"""What maskers keep about keys: built from the context, appended while decoding, rewound after."""

# B batch, G key-value heads, N new keys, D head dimension, V value dimension

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class KeyIndex(Protocol):
    """What a masker keeps about the keys of one layer, so as not to read them all again."""

    length: int
    """Keys indexed so far. May be less after a rewind than was asked for; the rest of the
    context is then appended again."""

    @property
    def nbytes(self) -> int:
        """Memory of what is indexed, in bytes; room kept for later keys does not count."""

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Index the next N keys."""

    def rewind(self, length: int) -> None:
        """Forget every key from position `length` on; never asked to go behind the context."""


Index = TypeVar("Index", bound=KeyIndex)


class KeyBuffer:
    """A tensor that grows along its key dimension in place.

    Where it outgrows its room, it gets a quarter more than it needs, so that appending a key
    seldom copies what is there.
    """

    def __init__(self, first: Tensor, *, dim: int, room: int = 0) -> None:
        """Start with `first`; `dim` is its key dimension, `room` the keys there will be."""
        self._dim = dim % first.ndim
        self._buffer = self._room_like(first, max(room, first.shape[dim]))
        self.length = 0
        self.append(first)

    @property
    def filled(self) -> Tensor:
        """What was appended; a view."""
        return self._buffer.narrow(self._dim, 0, self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of what was appended."""
        return self.filled.numel() * self._buffer.element_size()

    def append(self, new: Tensor) -> None:
        """Append along the key dimension."""
        count = new.shape[self._dim]
        if self.length + count > self._buffer.shape[self._dim]:
            larger = self._room_like(self._buffer, (self.length + count) * 5 // 4)
            larger.narrow(self._dim, 0, self.length).copy_(self.filled)
            self._buffer = larger
        self._buffer.narrow(self._dim, self.length, count).copy_(new)
        self.length += count

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on."""
        self.length = min(self.length, length)

    def _room_like(self, tensor: Tensor, capacity: int) -> Tensor:
        shape = list(tensor.shape)
        shape[self._dim] = capacity
        return tensor.new_empty(shape)


class EncodedKeys:
    """An index whose every key is encoded by itself, into one or more tensors.

    Codes of context keys and of keys that came later are made by the same function, so
    that they cannot drift apart.
    """

    def __init__(
        self,
        encode: Callable[[Tensor, Tensor], Sequence[Tensor]],
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        *,
        dim: int = -1,
    ) -> None:
        """Index the first N keys.

        Args:
            encode: from N keys and values to tensors whose dimension `dim` has length N.
            key: of the context.
            value: of the context.
            dim: the key dimension of all encoded tensors.
        """
        self._encode = encode
        self._buffers = [KeyBuffer(codes, dim=dim) for codes in encode(key, value)]
        self.length = key.shape[2]

    @property
    def codes(self) -> tuple[Tensor, ...]:
        """What `encode` returned, for all keys so far."""
        return tuple(buffer.filled for buffer in self._buffers)

    @property
    def nbytes(self) -> int:
        """Memory of the codes, in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Encode and append the next N keys."""
        for buffer, codes in zip(self._buffers, self._encode(key, value), strict=True):
            buffer.append(codes)
        self.length += key.shape[2]

    def rewind(self, length: int) -> None:
        """Forget every key from position `length` on."""
        for buffer in self._buffers:
            buffer.rewind(length)
        self.length = min(self.length, length)


def in_chunks(
    encode: Callable[[Tensor, Tensor], Sequence[Tensor]],
    key: Float[Tensor, "B G N D"],
    value: Float[Tensor, "B G N V"],
    *,
    chunk_keys: int,
    dim: int = -1,
) -> list[Tensor]:
    """Encode `chunk_keys` keys at a time, which bounds the memory of what `encode` computes."""
    count = key.shape[2]
    if count <= chunk_keys:
        return list(encode(key, value))
    parts = [
        encode(key[:, :, start : start + chunk_keys], value[:, :, start : start + chunk_keys])
        for start in range(0, count, chunk_keys)
    ]
    return [torch.cat(columns, dim=dim) for columns in zip(*parts, strict=True)]
