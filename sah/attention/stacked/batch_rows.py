"""The rows of a batch in one layer."""

# B rows, K keys of the longest row

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.attention.index import KeyIndex
from sah.attention.stacked.row_lengths import RowLengths


@dataclass(frozen=True, kw_only=True)
class BatchRows:
    """What differs between the rows of a batch in one layer, where each has one query, its last.

    Rows begin at position 0 and end where they end; K is the longest. What is beyond a row's end
    is not visible.
    """

    lengths: RowLengths
    seeds: Sequence[int]
    """`AttentionInputs.seed` of each row."""
    context_rows: Sequence[int]
    """`AttentionInputs.context_length` of each row."""
    kept: Sequence[KeptKeys | None]
    """`AttentionInputs.kept` of each row."""
    index: Callable[[Hashable, Callable[[Tensor, Tensor], KeyIndex]], KeyIndex]
    """Returns the owner's indexes of all rows, side by side."""

    def sequence_count(self) -> Int[Tensor, "B 1 1 1"]:
        """Return the number of keys that each query could read if none had been evicted."""
        dropped = tuple(0 if kept is None else kept.dropped for kept in self.kept)

        def count() -> Tensor:
            keys = self.lengths.count
            if any(dropped):
                keys = keys + self.lengths.constant(dropped)
            return keys.view(-1, 1, 1, 1)

        return self.lengths.cached(("sequence", dropped), count)
