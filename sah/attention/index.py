"""Key indexes: built from the context, appended while decoding, rewound after each answer."""

# B batch, G key-value heads, N new keys, D head dimension, V value dimension

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class KeyIndex(Protocol):
    """A masker's summary of one layer's keys, so that it need not read them all for each query."""

    length: int
    """Keys indexed so far. A rewind may leave fewer than it was asked to keep; the missing
    context keys are then appended again."""

    @property
    def nbytes(self) -> int:
        """Memory of the indexed keys, in bytes, without room reserved for later keys."""

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Index the next N keys."""

    def rewind(self, length: int) -> None:
        """Drop every key from position `length` on; `length` is never inside the context."""


Index = TypeVar("Index", bound=KeyIndex)


class KeyBuffer:
    """A tensor that grows in place along its key dimension.

    When it outgrows its room it reserves a quarter more than it needs, so that appending a key
    rarely copies the others.
    """

    def __init__(self, first: Tensor, *, dim: int, room: int = 0) -> None:
        """Start with a copy of `first`.

        Args:
            first: the first keys.
            dim: the key dimension.
            room: number of keys to reserve memory for.
        """
        self._dim = dim % first.ndim
        self._buffer = self._room_like(first, max(room, first.shape[dim]))
        self.length = 0
        self.append(first)

    @property
    def filled(self) -> Tensor:
        """View of the keys appended so far."""
        return self._buffer.narrow(self._dim, 0, self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys appended so far."""
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
        """Drop everything from position `length` on."""
        self.length = min(self.length, length)

    def _room_like(self, tensor: Tensor, capacity: int) -> Tensor:
        shape = list(tensor.shape)
        shape[self._dim] = capacity
        return tensor.new_empty(shape)


class EncodedKeys:
    """An index that encodes each key independently, into one or more tensors.

    The same function encodes context keys and later keys, so that their codes always match.
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
            encode: maps N keys and values to tensors whose dimension `dim` has length N.
            key: of the context.
            value: of the context.
            dim: the key dimension of all encoded tensors.
        """
        self._encode = encode
        self._buffers = [KeyBuffer(codes, dim=dim) for codes in encode(key, value)]
        self.length = key.shape[2]

    @property
    def codes(self) -> tuple[Tensor, ...]:
        """The tensors that `encode` returns, for all keys so far."""
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
        """Drop every key from position `length` on."""
        for buffer in self._buffers:
            buffer.rewind(length)
        self.length = min(self.length, length)


def encode_in_chunks(
    encode: Callable[[Tensor, Tensor], Sequence[Tensor]],
    key: Float[Tensor, "B G N D"],
    value: Float[Tensor, "B G N V"],
    *,
    chunk_keys: int,
    dim: int = -1,
) -> list[Tensor]:
    """Encode `chunk_keys` keys at a time, which bounds the memory of intermediate results."""
    count = key.shape[2]
    if count <= chunk_keys:
        return list(encode(key, value))
    parts = [
        encode(key[:, :, start : start + chunk_keys], value[:, :, start : start + chunk_keys])
        for start in range(0, count, chunk_keys)
    ]
    return [torch.cat(columns, dim=dim) for columns in zip(*parts, strict=True)]
