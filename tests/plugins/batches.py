"""Questions about one context, decoded in a batch."""

from collections.abc import Sequence

from sah.attention.session import AttentionSession
from sah.models.batch import Row, answer_rows
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext


def answered_together(
    model: LanguageModel,
    context: PrefilledContext,
    session: AttentionSession,
    questions: Sequence[Sequence[int]],
) -> tuple[list[list[int]], list[AttentionSession]]:
    """Return the tokens of each answer, ten at most, and the session of each row."""
    rows = [
        Row(
            example_id="one",
            context=context,
            question_ids=question,
            session=session.fork(),
            sampler=Generation().sampler(0, "one", model.device),
            max_new_tokens=10,
        )
        for question in questions
    ]
    answers = answer_rows(model, rows)
    return [answer.token_ids for answer in answers], [row.session for row in rows]
