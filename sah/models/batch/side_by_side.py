"""Rows whose attention is computed together, on a copy of their keys and values."""

# B rows, H query heads, G key-value heads, D head dimension

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sah.attention.interface import attention_replaced, layer_number
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.stacked.stacked_layer import StackedLayer
from sah.attention.stacked.stacked_session import StackedSession
from sah.models.batch.row import Row
from sah.models.language_model import LanguageModel


class SideBySide:
    """Decodes rows whose keys and values have been copied into one tensor a layer."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row]) -> None:
        """Take rows whose questions have been read."""
        self.rows = list(rows)
        self._model = model
        self._session = StackedSession(
            [row.session for row in rows], [row.begin_turn for row in rows]
        )
        self._layers: dict[int, StackedLayer] = {}
        self._lengths: dict[tuple[torch.device, tuple[int, ...]], RowLengths] = {}
        """By device and the numbers of keys at the first step: layers with the same ones share
        them."""

    def step(self) -> Tensor:
        """Feed the last token of each row; return the logits, [B, vocabulary]."""
        for lengths in self._lengths.values():
            lengths.advance()
        with attention_replaced(self._model.model, self._attention, lambda **_: None):
            logits = self._model.decode_rows(
                [row.answer.tokens[-1] for row in self.rows],
                [row.cache.length for row in self.rows],
            )
        self._session.end_step()
        for row in self.rows:
            row.cache.length += 1
        return logits

    def keep(self, going: Sequence[bool]) -> None:
        """Continue with the rows whose answers go on."""
        for number, goes_on in enumerate(going):
            if not goes_on:
                self._session.retire(number)
        count = sum(going)
        if count in (0, len(going)):
            self.rows = self.rows[:count]
            return
        # The last rows that go on take the places of those that have ended.
        free = [number for number in range(count) if not going[number]]
        late = [number for number in range(count, len(going)) if going[number]]
        moves = list(zip(late, free, strict=True))
        order = list(range(count))
        for source, target in moves:
            order[target] = source
        self.rows = [self.rows[number] for number in order]
        self._session.keep(moves, count)
        for layer in self._layers.values():
            layer.keep(moves, count)
        for lengths in self._lengths.values():
            lengths.keep(order)

    def _attention(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        # query is B H 1 D, key and value are B G 1 D: the last token of each row
        number = layer_number(module)
        if number not in self._layers:
            window = kwargs.get("sliding_window") or self.rows[0].cache.window(number)
            self._layers[number] = self._stacked(number, window)
        layer = self._layers[number]
        layer.append(key, value)
        return self._session.attend(module, query, layer, **kwargs), None

    def _stacked(self, number: int, window: int | None) -> StackedLayer:
        parts = [row.cache.parts(number) for row in self.rows]
        cached = [sum(key.shape[2] for key, _ in of_row) for of_row in parts]
        # A model may be spread over several devices.
        device, keys = parts[0][0][0].device, tuple(count + 1 for count in cached)
        if (device, keys) not in self._lengths:
            self._lengths[device, keys] = RowLengths(keys, device)
        return StackedLayer(
            parts,
            self._lengths[device, keys],
            room=max(count + row.room for count, row in zip(cached, self.rows, strict=True)),
            kept=[row.session.kept_at(number) for row in self.rows],
            window=window,
        )
