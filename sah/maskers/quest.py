"""Pages of keys, ranked by an upper bound on their scores."""

# B batch, H query heads, G key-value heads, Q queries, K keys, P pages, D head dimension

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, KeyBuffer, TopKMasker
from sah.attention.index import rows_kept
from sah.attention.selection import select_units
from sah.attention.stacked.row_lengths import RowLengths


@dataclass(frozen=True, kw_only=True)
class Quest(TopKMasker):
    """Add the keys of the pages with the highest bounds (Quest, arXiv:2406.10774).

    A page is `page_size` consecutive keys, counted from position 0. The index keeps the minimum
    and maximum of every channel, so that no key of the page scores more than
    Σ_d max(q_d·min_d, q_d·max_d), eq. 2: the score of the page and of all its keys.

    The page being filled, which holds the query's own key, comes first whatever its bound, as in
    the authors' kernel; its keys count towards the budget.

    Deviations. The budget is exact: the last page is cut to its first keys, where the paper's
    budget is a number of whole pages; keys that an earlier masker selected do not count. With
    several queries (a question) the bounds of a page include keys after a query; those are never
    selected. The authors keep the question and layers 0 and 1 dense: `protocol=question_dense`,
    and `dense_layers: [0, 1]` as in the preset. Their evaluation script ranks the page being
    filled like any other.
    """

    batched: ClassVar[bool] = True

    page_size: int = 16
    """Keys per page."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.page_size, bool) or self.page_size < 1:
            raise ValueError(f"Quest: page_size must be at least 1, got {self.page_size!r}")
        if self.tokens is not None and self.tokens < self.page_size:
            raise ValueError(
                f"Quest: tokens={self.tokens} is less than one page of page_size={self.page_size} "
                "keys; raise tokens or lower page_size"
            )

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        per_page = self._page_scores(inputs)
        return per_page.repeat_interleave(self.page_size, dim=-1)[..., : inputs.key.shape[2]]

    def select(self, inputs: AttentionInputs, mask: AttentionMask) -> Bool[Tensor, "B H Q K"]:
        if self.share != "head" or self.unit > 1:
            return super().select(inputs, mask)
        budget, _ = self.per_query(inputs)
        return select_units(self._page_scores(inputs), mask.candidates, budget, self.page_size)

    def _page_scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q P"]:
        pages = inputs.index(self, partial(PageBounds, page_size=self.page_size))
        # max(q·min, q·max) is q·max where q is positive and q·min elsewhere.
        bounds = inputs.dot(inputs.query.clamp(min=0), pages.highest)  # B H Q P
        bounds += inputs.dot(inputs.query.clamp(max=0), pages.lowest)
        own = (inputs.query_position // self.page_size).view(-1, 1, inputs.query.shape[2], 1)
        return bounds.scatter_(-1, own.expand(*bounds.shape[:3], 1), torch.inf)


class PageBounds:
    """Minimum and maximum of every channel on each page."""

    def __init__(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"], *, page_size: int
    ) -> None:
        self.page_size = page_size
        nothing = key[:, :, :0]
        self._lowest, self._highest = KeyBuffer(nothing, dim=2), KeyBuffer(nothing, dim=2)
        self.length = 0
        self.append(key, value)

    @property
    def lowest(self) -> Float[Tensor, "B G P D"]:
        """Minimum of each channel on each page."""
        return self._lowest.filled

    @property
    def highest(self) -> Float[Tensor, "B G P D"]:
        """Maximum of each channel on each page."""
        return self._highest.filled

    def hold(
        self, lowest: Float[Tensor, "B G P D"], highest: Float[Tensor, "B G P D"], length: int
    ) -> None:
        """Hold these bounds of `length` keys, whose memory is shared."""
        self._lowest, self._highest = KeyBuffer.of(lowest, dim=2), KeyBuffer.of(highest, dim=2)
        self.length = length

    @property
    def nbytes(self) -> int:
        """Memory of the bounds, in bytes."""
        return self._lowest.nbytes + self._highest.nbytes

    @classmethod
    def side_by_side(
        cls, indexes: Iterable["PageBounds"], lengths: RowLengths, room: int
    ) -> "PageBoundsOfRows":
        """Copy the bounds of a batch's rows into one index."""
        whole: PageBoundsOfRows | None = None
        for row, index in enumerate(indexes):
            whole = whole or PageBoundsOfRows(index, lengths, room)
            whole.write(row, index)
        assert whole is not None, "a batch has rows"
        return whole

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Widen the bounds of the page being filled, then add pages."""
        room = -self.length % self.page_size
        here, beyond = key[:, :, :room], key[:, :, room:]
        if here.shape[2]:
            last_low, last_high = self.lowest[:, :, -1], self.highest[:, :, -1]
            torch.minimum(last_low, here.amin(2), out=last_low)
            torch.maximum(last_high, here.amax(2), out=last_high)
        whole = beyond.shape[2] // self.page_size * self.page_size
        if whole:
            pages = beyond[:, :, :whole].unflatten(2, (-1, self.page_size))
            self._lowest.append(pages.amin(3))
            self._highest.append(pages.amax(3))
        if whole < beyond.shape[2]:
            self._lowest.append(beyond[:, :, whole:].amin(2, keepdim=True))
            self._highest.append(beyond[:, :, whole:].amax(2, keepdim=True))
        self.length += key.shape[2]

    def rewind(self, length: int) -> None:
        """Drop every page that holds a key from position `length` on.

        Bounds cannot be narrowed, so that a page cut in two is dropped whole; its first keys
        are appended again.
        """
        if length < self.length:
            pages = length // self.page_size
            self._lowest.rewind(pages)
            self._highest.rewind(pages)
            self.length = pages * self.page_size


class PageBoundsOfRows(PageBounds):
    """The bounds of each row of a batch; beyond the last page of a row they may be anything."""

    _lowest: Float[Tensor, "B G P D"]  # type: ignore[assignment]
    _highest: Float[Tensor, "B G P D"]  # type: ignore[assignment]

    def __init__(self, like: PageBounds, lengths: RowLengths, room: int) -> None:
        """Reserve memory for `room` keys a row; `like` is the index of one row."""
        self._like, self._lengths, self.page_size = like, lengths, like.page_size
        pages = -(-room // self.page_size)
        self._lowest, self._highest = (
            bound.new_zeros(len(lengths.keys), bound.shape[1], pages, bound.shape[3])
            for bound in (like.lowest, like.highest)
        )
        self.length = lengths.longest

    @property
    def lowest(self) -> Float[Tensor, "B G P D"]:
        """Minimum of each channel on each page."""
        return self._filled(self._lowest)

    @property
    def highest(self) -> Float[Tensor, "B G P D"]:
        """Maximum of each channel on each page."""
        return self._filled(self._highest)

    def write(self, row: int, index: PageBounds) -> None:
        """Copy the index of one row."""
        pages = index.lowest.shape[2]
        self._lowest[row, :, :pages] = index.lowest[0]
        self._highest[row, :, :pages] = index.highest[0]

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Widen the bounds of each row's last page, or begin a page."""
        rows, last = self._lengths.rows, self._lengths.last(key.shape[2])
        for number in range(key.shape[2]):
            new, position = key[:, :, number], last[:, number]  # B G D, B
            page, begins = position // self.page_size, position % self.page_size == 0
            for bounds, narrowed in (
                (self._lowest, torch.minimum),
                (self._highest, torch.maximum),
            ):
                both = narrowed(bounds[rows, :, page], new)
                bounds[rows, :, page] = torch.where(begins.view(-1, 1, 1), new, both)
        self.length += key.shape[2]

    def rewind(self, length: int) -> None:
        """Refuse; rows side by side grow only."""
        raise NotImplementedError("the indexes of a batch's rows grow only")

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Continue with some rows."""
        self._lowest = rows_kept(self._lowest, moves, rows)
        self._highest = rows_kept(self._highest, moves, rows)

    def row(self, number: int) -> PageBounds:
        """Return the index of one row, which shares the memory."""
        one, keys = copy.copy(self._like), self._lengths.keys[number]
        pages = -(-keys // self.page_size)
        one.hold(
            self._lowest[number : number + 1, :, :pages],
            self._highest[number : number + 1, :, :pages],
            keys,
        )
        return one

    def _filled(self, bounds: Tensor) -> Tensor:
        return bounds[: len(self._lengths.keys), :, : -(-self._lengths.longest // self.page_size)]
