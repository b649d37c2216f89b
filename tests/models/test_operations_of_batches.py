"""The operations of a decode step are shared by the rows of a batch."""

from collections.abc import Callable
from typing import Any

import presets
import pytest
import torch
from device_path import as_on_a_device
from operation_counts import Counting
from presets import REWRITING, SELECTING

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel

CONTEXT = [1 + (7 * n) % 390 for n in range(120)]
QUESTION = [5 + (11 * n) % 380 for n in range(5)]
STEPS = 4
EVICTING = [name for name in presets.EVICTING if name not in ("kvzip", "duo_attention")]


class Given:
    """Gives the same token whatever the logits are."""

    def choose(self, logits: torch.Tensor) -> int:
        return 7


def operations(model: LanguageModel, attention: Any, count: int) -> float:
    """Count the operations of a token in a batch of rows about contexts of different lengths."""
    counting, steps = Counting(), iter(range(STEPS))

    def between() -> None:
        if next(steps) == 1:
            counting.__enter__()

    witness = attention.witness if isinstance(attention, SparseAttention) else None
    rows = []
    with as_on_a_device():
        for number in range(count):
            context = model.prefill(CONTEXT[2 * number :], reserve_tokens=20, witness=witness)
            if witness is not None:
                context = evicted(context, attention, model.model.config, seed=0)
            session = AttentionSession(attention, seed=0)
            session.begin_context(context.length, context.kept)
            rows.append(
                Row(
                    example_id=f"row {number}",
                    context=context,
                    question_ids=QUESTION,
                    session=session,
                    sampler=Given(),
                    max_new_tokens=STEPS,
                )
            )
        try:
            answer_rows(model, rows, between_tokens=between)
        finally:
            counting.__exit__(None, None, None)
    # The first step builds what later ones reuse.
    return counting.operations / (count * (STEPS - 2))


@pytest.mark.parametrize("name", ["dense", *SELECTING, *EVICTING, *REWRITING])
def test_a_token_of_32_rows_takes_a_fifteenth_of_the_operations(
    name: str, preset: Callable[[str], Any], tiny: LanguageModel, calibrated: None
) -> None:
    attention = DenseAttention() if name == "dense" else preset(name)
    alone, batched = (operations(tiny, attention, count) for count in (1, 32))
    assert batched <= alone / 15
