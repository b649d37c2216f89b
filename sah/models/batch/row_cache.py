"""What a row of a batch has cached."""

# G key-value heads, S keys after the context, D head dimension

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from sah.attention.session import AttentionSession
from sah.attention.stacked.stacked_layer import Part
from sah.models.cache import BufferedLayer, window_of
from sah.models.language_model import PrefilledContext


class RowCache:
    """The layers of a row's cache, some of which it may share with other rows of its context.

    A shared layer has the keys of the context. During the turn of a row, it has those of its
    question and answer as well, which are kept here for the rest of the time.
    """

    def __init__(self, held: PrefilledContext, *, shared: PrefilledContext | None) -> None:
        """Begin with what a row has read so far.

        Args:
            held: its context, or with its question already.
            shared: the context, if other rows are about it, too; its layers do not change while
                no row has its turn, once it has been rewound.
        """
        self.length = held.cache.length
        """Tokens of the sequence."""
        self._layers: list[Any] = list(held.cache.layers)
        self._after_context: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values after the context in shared layers, each [1, G, S, D]."""
        if shared is None:
            return
        for number, layer in enumerate(self._layers):
            if layer is not shared.cache.layers[number]:
                continue
            if isinstance(layer, BufferedLayer):
                begin = layer.keys.shape[2] - (layer.get_seq_length() - shared.length)
                self._after_context[number] = _copied(layer, begin)
            else:
                # Keys and values of sliding windows are replaced, and never written into.
                self._layers[number] = copy.copy(layer)

    def window(self, layer: int) -> int | None:
        """Return the sliding window of a layer, if it has one."""
        return window_of(self._layers[layer])

    def parts(self, layer: int) -> list[Part]:
        """Return the keys and values of a layer: of the context, and what comes after it."""
        cached = self._layers[layer]
        after = self._after_context.get(layer)
        return [(cached.keys, cached.values)] + ([] if after is None else [after])

    @contextmanager
    def turn(self, layer: int, session: AttentionSession) -> Iterator[Any]:
        """Yield a layer with all keys of this row; what is appended to it stays this row's."""
        cached = self._layers[layer]
        if layer not in self._after_context:
            yield cached
            return
        begin = cached.keys.shape[2]
        session.rewind(layer)
        cached.update(*self._after_context[layer])
        try:
            yield cached
            self._after_context[layer] = _copied(cached, begin)
        finally:
            cached.crop(begin - cached.keys.shape[2])  # minus the number of rows to remove


def _copied(layer: Any, begin: int) -> tuple[Tensor, Tensor]:
    """Copy the rows from `begin` on, which the next row overwrites."""
    return layer.keys[:, :, begin:].clone(), layer.values[:, :, begin:].clone()
