"""Rewinding leaves no trace of earlier questions, under every preset in conf."""

from collections.abc import Callable
from typing import Any

import pytest
from presets import SELECTING

from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext

# Eviction is rewound in test_eviction.py.
PRESETS = ["dense", *SELECTING]
pytestmark = pytest.mark.usefixtures("calibrated")

CONTEXT = [1 + (7 * n) % 390 for n in range(300)]
QUESTIONS = {"A": [5 + (11 * n) % 380 for n in range(30)], "B": [9 + 3 * n for n in range(7)]}

Outcome = tuple[list[int], float]


def ask(
    model: LanguageModel,
    context: PrefilledContext,
    session: AttentionSession,
    question: str,
    generation: Generation,
) -> Outcome:
    session.begin_example(question)
    answer = model.answer(
        context,
        QUESTIONS[question],
        session=session,
        sampler=generation.sampler(0, question, model.device),
        max_new_tokens=12 if question == "A" else 8,
    )
    return answer.token_ids, session.density()


def start(model: LanguageModel, attention: Any) -> tuple[PrefilledContext, AttentionSession]:
    context = model.prefill(CONTEXT, reserve_tokens=50)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length)
    return context, session


@pytest.mark.parametrize(
    "generation", [Generation(), Generation(temperature=1.5)], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("name", PRESETS)
def test_answering_a_then_b_equals_answering_b_alone(
    name: str, generation: Generation, tiny: LanguageModel, preset: Callable[[str], Any]
) -> None:
    used = start(tiny, preset(name))
    fresh = ask(tiny, *start(tiny, preset(name)), "B", generation)
    first = ask(tiny, *used, "A", generation)
    assert ask(tiny, *used, "B", generation) == fresh
    assert ask(tiny, *used, "A", generation) == first
    assert len(first[0]) > 1


@pytest.mark.parametrize("name", PRESETS)
def test_an_intermediate_context_leaves_no_trace(
    name: str, tiny: LanguageModel, preset: Callable[[str], Any]
) -> None:
    generation = Generation()
    context, session = start(tiny, preset(name))
    before = ask(tiny, context, session, "B", generation)
    other = tiny.prefill(CONTEXT[::-1][:200], reserve_tokens=50)
    session.begin_context(other.length)
    ask(tiny, other, session, "A", generation)
    session.begin_context(context.length)
    assert ask(tiny, context, session, "B", generation) == before
