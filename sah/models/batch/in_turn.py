"""Rows whose attention is computed one after the other."""

# H query heads, G key-value heads, N new tokens of all rows, Q of one of them, K keys, D dimension

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sah.attention.interface import attention_replaced, layer_number
from sah.attention.session import AttentionSession
from sah.models.batch.row import Row
from sah.models.language_model import LanguageModel


class InTurn:
    """Reads questions and decodes answers of rows that take turns in their own caches.

    The new tokens of all rows pass through the model together, one after the other as in a single
    sequence, so that its weights are read once. Only attention is computed row by row.
    """

    def __init__(self, model: LanguageModel, rows: Sequence[Row]) -> None:
        """Take rows whose `cache` is set."""
        self.rows = list(rows)
        self._model = model
        self._new_tokens: list[int] = []
        """Of each row, in the present forward pass."""
        self._question_session: AttentionSession | None = None

    def read(self, dense: AttentionSession | None = None) -> Tensor:
        """Read the question of each row; return the logits of their last tokens, [B, vocabulary].

        Args:
            dense: computes the questions in place of the rows' sessions, if given.
        """
        self._question_session = dense
        try:
            return self._fed([row.question_ids for row in self.rows], is_question=True)
        finally:
            self._question_session = None

    def step(self) -> Tensor:
        """Feed the last token of each row; return the logits, [B, vocabulary]."""
        return self._fed([row.answer.tokens[-1:] for row in self.rows], is_question=False)

    def keep(self, going: Sequence[bool]) -> None:
        """Continue with the rows whose answers go on."""
        self.rows = [row for row, goes_on in zip(self.rows, going, strict=True) if goes_on]

    def _fed(self, token_ids: Sequence[Sequence[int]], *, is_question: bool) -> Tensor:
        self._new_tokens = [len(ids) for ids in token_ids]
        for row in self.rows:
            row.session.begin_step(is_question=is_question)
        with attention_replaced(self._model.model, self._attention, lambda **_: None):
            logits = self._model.read_rows(token_ids, [row.cache.length for row in self.rows])
        for row, count in zip(self.rows, self._new_tokens, strict=True):
            row.cache.length += count
        return logits

    def _attention(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        # query is 1 H N D, key and value are 1 G N D: the new tokens of all rows
        layer = layer_number(module)
        window = kwargs.get("sliding_window") or self.rows[0].cache.window(layer)
        outputs = []
        of_rows = (part.split(self._new_tokens, dim=2) for part in (query, key, value))
        for row, queries, new_keys, new_values in zip(self.rows, *of_rows, strict=True):
            row.begin_turn()
            session, visible = self._question_session or row.session, None
            with row.cache.turn(layer, row.session) as cached:
                keys, values = cached.update(new_keys, new_values)
                if window is not None:
                    # Those that the first query may read, and the ones after them.
                    seen = window - 1 + queries.shape[2]
                    keys, values = keys[:, :, -seen:], values[:, :, -seen:]
                    visible = _in_window(queries, keys, window)
                outputs.append(session.attend(module, queries, keys, values, visible, **kwargs))
        return torch.cat(outputs, dim=1), None


def _in_window(query: Tensor, key: Tensor, window: int) -> Tensor | None:
    """Return what the last tokens of a row may read, [1, 1, Q, K]; None: all."""
    queries, keys = query.shape[2], key.shape[2]
    if queries == 1:
        return None
    position = torch.arange(keys, device=key.device)
    own = position[keys - queries :, None]
    return ((position <= own) & (position > own - window))[None, None]
