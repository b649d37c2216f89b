"""Predictions for examples."""

import math
from collections.abc import Callable, Sequence

import pytest

from sah.types import Example, Prediction


@pytest.fixture
def predict() -> Callable[..., list[Prediction]]:
    """Answer each example with the text that a function makes of it."""

    def answer(examples: Sequence[Example], text: Callable[[Example], str]) -> list[Prediction]:
        return [
            Prediction(
                example_id=example.id,
                task=example.task,
                text=text(example),
                input_hash="",
                finish_reason="eos",
                context_tokens=1,
                question_tokens=1,
                new_tokens=1,
                prefill_seconds=None,
                decode_seconds=0.0,
                density=1.0,
                # A continuation that is foreseen, or not at all.
                loss=(0.0 if text(example) else math.inf) if example.forced else None,
            )
            for example in examples
        ]

    return answer


@pytest.fixture
def example() -> Callable[..., Example]:
    """Make an example of which little matters."""

    def make(task: str = "task", number: int = 0, references: tuple[str, ...] = ("x",)) -> Example:
        return Example(
            id=f"{task}-{number}",
            task=task,
            context="context",
            question="question",
            references=references,
            max_new_tokens=1,
        )

    return make
