"""Operations and waits of decode steps, by the counter of perf/op_counts.py."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sah.attention import SparseAttention
from sah.attention.session import AttentionSession, Observer
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.generation import TokenChooser
from sah.models.language_model import LanguageModel

_spec = importlib.util.spec_from_file_location(
    "op_counts", Path(__file__).resolve().parents[2] / "perf" / "op_counts.py"
)
assert _spec is not None
assert _spec.loader is not None
_op_counts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_op_counts)

Counting = _op_counts.Counting

QUESTION = [5 + (11 * n) % 380 for n in range(5)]
STEPS = 4


def counted(
    model: LanguageModel,
    attention: Any,
    contexts: Sequence[Sequence[int]],
    sampler: TokenChooser,
    *observers: Observer,
) -> Any:
    """Answer a question about each context in one batch.

    Returns:
        What counted the last two decode steps; the first builds what later ones reuse.
    """
    counting, steps = Counting(), iter(range(STEPS))

    def between() -> None:
        if next(steps) == 1:
            counting.__enter__()

    witness = attention.witness if isinstance(attention, SparseAttention) else None
    rows = []
    for number, ids in enumerate(contexts):
        context = model.prefill(ids, reserve_tokens=20, witness=witness)
        if witness is not None:
            context = evicted(context, attention, model.model.config, seed=0)
        session = AttentionSession(attention, seed=0, observers=observers)
        session.begin_context(context.length, context.kept)
        rows.append(
            Row(
                example_id=f"row {number}",
                context=context,
                question_ids=QUESTION,
                session=session,
                sampler=sampler,
                max_new_tokens=STEPS,
            )
        )
    try:
        answer_rows(model, rows, between_tokens=between)
    finally:
        counting.__exit__(None, None, None)
    return counting
