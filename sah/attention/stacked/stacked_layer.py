"""Keys and values of a batch's rows in one layer, side by side."""

# B rows, H query heads, G key-value heads, K keys of the longest row, N new or last keys,
# D/V dimensions

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.attention.index import RowsBuffer
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.visibility import Visibility

Part = tuple[Tensor, Tensor]
"""Consecutive keys and values of one row, [1, G, N, D] and [1, G, N, V]."""


class StackedLayer:
    """Keys and values of all rows, each from position 0 on."""

    def __init__(
        self,
        rows: Sequence[Sequence[Part]],
        lengths: RowLengths,
        *,
        room: int,
        kept: Sequence[KeptKeys | None],
        window: int | None,
    ) -> None:
        """Copy what the rows have cached.

        Args:
            rows: the parts of each row, in order.
            lengths: keys of each row, with the one that the present step adds.
            room: keys to reserve memory for; with more, rows are copied.
            kept: what each row keeps of its context; None: everything.
            window: the layer's sliding window, if it has one.
        """
        key, value = rows[0][0]
        self.lengths, self.kept, self.window, self.room = lengths, list(kept), window, room
        self._keys = RowsBuffer(key, dim=2, lengths=lengths, room=room)
        self._values = RowsBuffer(value, dim=2, lengths=lengths, room=room)
        for number, parts in enumerate(rows):
            begin = 0
            for key, value in parts:
                self._keys.write(number, key, begin=begin)
                self._values.write(number, value, begin=begin)
                begin += key.shape[2]
        self._padding: RowsBuffer | None = None
        """Rows that pad heads which keep fewer keys, [B, G, K]."""
        padded = [(row, one.valid) for row, one in enumerate(kept) if one and one.valid is not None]
        for number, valid in padded:
            if self._padding is None:
                self._padding = RowsBuffer(valid, dim=2, lengths=lengths, room=room)
            self._padding.write(number, ~valid)

    @property
    def key(self) -> Float[Tensor, "B G K D"]:
        """Keys of all rows."""
        return self._keys.filled

    @property
    def value(self) -> Float[Tensor, "B G K V"]:
        """Values of all rows."""
        return self._values.filled

    def append(self, key: Float[Tensor, "B G 1 D"], value: Float[Tensor, "B G 1 V"]) -> None:
        """Append the key and value of this step to each row."""
        self._keys.append(key)
        self._values.append(value)

    def last(self, count: int) -> tuple[Float[Tensor, "B G N D"], Float[Tensor, "B G N V"]]:
        """Return the last keys and values of each row."""
        rows, at = self.lengths.rows.unsqueeze(1), self.lengths.last(count)
        key, value = (
            part.transpose(1, 2)[rows, at].transpose(1, 2) for part in (self.key, self.value)
        )
        return key, value

    def visibility(self, group_size: int) -> Visibility:
        """Return what the last query of each row may read; H / G query heads share a key."""
        visibility = Visibility.of_rows(self.lengths, self.window)
        if self._padding is None:
            return visibility
        padding = self._padding.filled.repeat_interleave(group_size, dim=1).unsqueeze(2)  # B H 1 K
        return Visibility(visibility.keys & ~padding)

    def row(self, number: int) -> Part:
        """View of one row's keys and values; of those in the window, if there is one."""
        key, value = self._keys.row(number), self._values.row(number)
        if self.window is None:
            return key, value
        return key[:, :, -self.window :], value[:, :, -self.window :]

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Put rows in the place of others, as (from, to), and continue with the first `rows`."""
        for buffer in (self._keys, self._values, self._padding):
            if buffer is not None:
                buffer.keep(moves)
        for source, target in moves:
            self.kept[target] = self.kept[source]
        del self.kept[rows:]
