"""Answers of the rows of a batch, alone and together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention.keys_read import KeysRead
from sah.attention.session import AttentionSession
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel

LENGTHS = (70, 43, 91, 58)
QUESTIONS = ([5, 9, 14], [200], [40, 2, 77, 12, 31], [8, 8])


@dataclass
class Given:
    """Chooses given tokens, and keeps the logits."""

    logits: list[Tensor] = field(default_factory=list)

    def choose(self, logits: Tensor) -> int:
        self.logits.append(logits.clone())
        return 20 + 7 * len(self.logits)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a row leaves."""

    logits: Sequence[Tensor]
    read: KeysRead | None
    index_bytes: dict[str, float]
    context_index_bytes: float

    def assert_as(self, alone: "Answered") -> None:
        """Check that this row has the logits and measures of one that was answered alone."""
        assert len(self.logits) == len(alone.logits)
        for one, other in zip(self.logits, alone.logits, strict=True):
            # Products of another shape round differently.
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert (self.read is None) == (alone.read is None)
        if self.read is not None and alone.read is not None:
            assert vars(self.read) == pytest.approx(vars(alone.read), rel=1e-6)
        assert self.index_bytes == pytest.approx(alone.index_bytes)
        assert self.context_index_bytes == alone.context_index_bytes


@pytest.fixture(scope="session")
def answered() -> Callable[..., list[Answered]]:
    """Answer one question each about contexts of different lengths, together or one by one."""

    def answer(
        model: LanguageModel,
        attention: Any,
        limits: Sequence[int],
        *,
        together: bool,
        reserve_tokens: int = 30,
    ) -> list[Answered]:
        rows = []
        witness = getattr(attention, "witness", None)
        for number, limit in enumerate(limits):
            ids = [2 + (7 * n + 31 * number) % 390 for n in range(LENGTHS[number])]
            context = model.prefill(ids, reserve_tokens=reserve_tokens, witness=witness)
            if witness is not None:
                context = evicted(context, attention, model.model.config, seed=0)
            session = AttentionSession(attention, seed=0)
            session.begin_context(context.length, context.kept)
            row = Row(
                example_id=str(number),
                context=context,
                question_ids=QUESTIONS[number],
                session=session.fork(),
                sampler=Given(),
                max_new_tokens=limit,
            )
            rows.append(row)
        for batch in [rows] if together else [[row] for row in rows]:
            answer_rows(model, batch)
        return [
            Answered(
                logits=row.sampler.logits,  # type: ignore[attr-defined]
                read=row.session.keys_read(),
                index_bytes=row.session.index_bytes(),
                context_index_bytes=row.session.context_index_bytes(),
            )
            for row in rows
        ]

    return answer
