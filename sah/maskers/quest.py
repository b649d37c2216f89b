"""Pages of keys, ranked by an upper bound on their scores."""

# B batch, H query heads, G key-value heads, Q queries, K keys, P pages, D head dimension

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, KeyBuffer, TopKMasker
from sah.attention.selection import select_units


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
        position = torch.arange(inputs.query.shape[2], device=bounds.device)
        own = (inputs.first_position + position) // self.page_size  # Q
        bounds[:, :, position, own] = torch.inf
        return bounds


class PageBounds:
    """Minimum and maximum of every channel on each page."""

    def __init__(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"], *, page_size: int
    ) -> None:
        self._page_size = page_size
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

    @property
    def nbytes(self) -> int:
        """Memory of the bounds, in bytes."""
        return self._lowest.nbytes + self._highest.nbytes

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Widen the bounds of the page being filled, then add pages."""
        room = -self.length % self._page_size
        here, beyond = key[:, :, :room], key[:, :, room:]
        if here.shape[2]:
            last_low, last_high = self.lowest[:, :, -1], self.highest[:, :, -1]
            torch.minimum(last_low, here.amin(2), out=last_low)
            torch.maximum(last_high, here.amax(2), out=last_high)
        whole = beyond.shape[2] // self._page_size * self._page_size
        if whole:
            pages = beyond[:, :, :whole].unflatten(2, (-1, self._page_size))
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
            pages = length // self._page_size
            self._lowest.rewind(pages)
            self._highest.rewind(pages)
            self.length = pages * self._page_size
