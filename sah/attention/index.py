"""Key indexes: built from the context, appended while decoding, rewound after each answer."""

# B batch, G key-value heads, N new keys, D head dimension, V value dimension

import copy
from collections.abc import Callable, Hashable, Iterable, MutableMapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sah.attention.stacked.row_lengths import RowLengths


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


@runtime_checkable
class RowsIndex(Protocol):
    """The indexes of a batch's rows in one layer, side by side; used by a masker like one index."""

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Index the next N keys of every row."""

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Put rows in the place of others, as (from, to), and continue with the first `rows`."""

    def row(self, number: int) -> KeyIndex:
        """Return the index of one row, to be measured; it shares the memory."""


@runtime_checkable
class StackableIndex(Protocol):
    """A key index that can stand beside those of other rows."""

    @classmethod
    def side_by_side(cls, indexes: Iterable[Any], lengths: RowLengths, room: int) -> RowsIndex:
        """Copy the indexes of the rows of a batch into one.

        Args:
            indexes: of each row in turn; asking for the next one may change the last.
            lengths: keys of each row; keys that are appended are each row's last ones.
            room: positions to reserve memory for.
        """


def index_of(
    indexes: MutableMapping[Hashable, KeyIndex],
    owner: Hashable,
    build: Callable[[Tensor, Tensor], Index],
    key: Float[Tensor, "B G K D"],
    value: Float[Tensor, "B G K V"],
    context_length: int,
) -> Index:
    """Return the owner's index over all K keys, as `AttentionInputs.index` does."""
    if owner not in indexes:
        length = context_length or key.shape[2]
        indexes[owner] = build(key[:, :, :length], value[:, :, :length])
    index = cast(Index, indexes[owner])
    if index.length < key.shape[2]:
        index.append(key[:, :, index.length :], value[:, :, index.length :])
    return index


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

    @classmethod
    def of(cls, filled: Tensor, *, dim: int) -> "KeyBuffer":
        """Return a full buffer that shares the memory of a tensor."""
        made = cls.__new__(cls)
        made._dim, made._buffer, made.length = dim % filled.ndim, filled, filled.shape[dim]
        return made

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


class RowsBuffer:
    """Tensors of a batch's rows side by side, each of a length of its own along a dimension.

    Where a row has ended, there are zeros or what a longer row has left.
    """

    def __init__(self, like: Tensor, *, dim: int, lengths: RowLengths, room: int) -> None:
        """Reserve memory.

        Args:
            like: the tensor of one row, [1, ...].
            dim: the key dimension, not 0.
            lengths: keys of each row; what is appended belongs to each row's last keys.
            room: positions to reserve memory for.
        """
        self._dim = dim % like.ndim
        self._lengths = lengths
        shape = [len(lengths.keys), *like.shape[1:]]
        shape[self._dim] = room
        self._buffer = like.new_zeros(shape)

    @property
    def filled(self) -> Tensor:
        """View of all rows up to the end of the longest."""
        here = self._buffer[: len(self._lengths.keys)]
        return here.narrow(self._dim, 0, self._lengths.longest)

    def write(self, row: int, part: Tensor, *, begin: int = 0) -> None:
        """Write a part of one row, [1, ...], from position `begin` on."""
        count = part.shape[self._dim]
        self._buffer[row : row + 1].narrow(self._dim, begin, count).copy_(part)

    def append(self, new: Tensor) -> None:
        """Write what belongs to the last keys of every row."""
        self._grow()
        count = new.shape[self._dim]
        at, rows = self._lengths.last(count), self._lengths.rows.unsqueeze(1)  # B N, B 1
        self._buffer.movedim(self._dim, 1)[rows, at] = new.movedim(self._dim, 1)

    def keep(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy rows to the place of others, as (from, to)."""
        for source, target in moves:
            self._buffer[target].copy_(self._buffer[source])

    def row(self, number: int) -> Tensor:
        """View of one row up to its end, [1, ...]."""
        return self._buffer[number : number + 1].narrow(self._dim, 0, self._lengths.keys[number])

    def _grow(self) -> None:
        longest, room = self._lengths.longest, self._buffer.shape[self._dim]
        if longest > room:
            shape = list(self._buffer.shape)
            shape[self._dim] = longest * 5 // 4
            larger = self._buffer.new_zeros(shape)
            larger.narrow(self._dim, 0, room).copy_(self._buffer)
            self._buffer = larger


class EncodedKeys:
    """An index that encodes each key independently, into one or more tensors.

    The same function encodes context keys and later keys, so that their codes always match.
    """

    row_tensors: ClassVar[Sequence[str] | None] = None
    """Names of the attributes that differ between contexts: tensors with the batch in front.

    None if indexes of several contexts cannot stand side by side. A subclass that sets it overrides
    `encode`, which may use these attributes."""

    def __init__(
        self,
        encode: Callable[[Tensor, Tensor], Sequence[Tensor]] | None,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        *,
        dim: int = -1,
    ) -> None:
        """Index the first N keys.

        Args:
            encode: maps N keys and values to tensors whose dimension `dim` has length N; None in
                a subclass that overrides `encode`.
            key: of the context.
            value: of the context.
            dim: the key dimension of all encoded tensors.
        """
        self._function = encode
        self._dim = dim
        self._buffers: Sequence[KeyBuffer | RowsBuffer] = [
            KeyBuffer(codes, dim=dim) for codes in self.encode(key, value)
        ]
        self.length = key.shape[2]

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> Sequence[Shaped[Tensor, "..."]]:
        """Encode N keys and values into tensors whose key dimension has length N."""
        assert self._function is not None, "a subclass overrides `encode`"
        return self._function(key, value)

    @classmethod
    def side_by_side(
        cls, indexes: Iterable["EncodedKeys"], lengths: RowLengths, room: int
    ) -> "EncodedKeys":
        """Copy the indexes of a batch's rows into one, as in `StackableIndex`."""
        assert cls.row_tensors is not None
        tensors: dict[str, list[Tensor]] = {name: [] for name in cls.row_tensors}
        whole: EncodedKeys | None = None
        buffers: list[RowsBuffer] = []
        for row, index in enumerate(indexes):
            if whole is None:
                whole = copy.copy(index)
                buffers = [
                    RowsBuffer(codes, dim=index._dim, lengths=lengths, room=room)
                    for codes in index.codes
                ]
            for buffer, codes in zip(buffers, index.codes, strict=True):
                buffer.write(row, codes)
            for name, parts in tensors.items():
                parts.append(getattr(index, name))
        assert whole is not None, "a batch has rows"
        for name, parts in tensors.items():
            setattr(whole, name, torch.cat(parts))
        whole._buffers, whole.length = buffers, lengths.longest
        return whole

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Continue with some rows, as in `RowsIndex`."""
        for buffer in self._buffers:
            assert isinstance(buffer, RowsBuffer)
            buffer.keep(moves)
        for name in self.row_tensors or ():
            setattr(self, name, rows_kept(getattr(self, name), moves, rows))

    def row(self, number: int) -> "EncodedKeys":
        """Return the index of one row, as in `RowsIndex`."""
        one, codes = copy.copy(self), []
        for buffer in self._buffers:
            assert isinstance(buffer, RowsBuffer)
            codes.append(KeyBuffer.of(buffer.row(number), dim=self._dim))
        one._buffers, one.length = codes, codes[0].length
        for name in self.row_tensors or ():
            setattr(one, name, getattr(self, name)[number : number + 1])
        return one

    @property
    def codes(self) -> tuple[Tensor, ...]:
        """The tensors that `encode` returns, for all keys so far."""
        return tuple(buffer.filled for buffer in self._buffers)

    @property
    def nbytes(self) -> int:
        """Memory of the codes, in bytes."""
        return sum(codes.nbytes for codes in self.codes)

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Encode and append the next N keys."""
        for buffer, codes in zip(self._buffers, self.encode(key, value), strict=True):
            buffer.append(codes)
        self.length += key.shape[2]

    def rewind(self, length: int) -> None:
        """Drop every key from position `length` on."""
        for buffer in self._buffers:
            assert isinstance(buffer, KeyBuffer), "rows side by side grow only"
            buffer.rewind(length)
        self.length = min(self.length, length)


def rows_kept(
    tensor: Shaped[Tensor, "B ..."], moves: Sequence[tuple[int, int]], rows: int
) -> Shaped[Tensor, "N ..."]:
    """Return the first `rows` rows after copying some to the place of others, as (from, to)."""
    kept = tensor[:rows].clone() if moves else tensor[:rows]
    for source, target in moves:
        kept[target] = tensor[source]
    return kept


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
