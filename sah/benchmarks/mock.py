"""Five hand-made examples that run the whole pipeline in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.requirements import require_positive
from sah.benchmarks.scorers import exact_match
from sah.benchmarks.scoring import Task
from sah.types import Example, Prediction, PromptTokenizer, Score

_GARDEN = (
    "Mira has a garden. In the garden there are four apple trees, two pear trees and one old "
    "walnut tree. A grey cat named Otto sleeps under the walnut tree every afternoon.\n"
)
_TRAIN = (
    "The night train leaves Lisbon at nine in the evening and reaches Madrid at eight in the "
    "morning. It has a dining car, and the dining car is red.\n"
)
_QUESTIONS = (
    (_GARDEN, "What is the name of the cat? Answer with one word.", "Otto"),
    (_GARDEN, "How many apple trees are there? Answer with one word.", "Four"),
    (_GARDEN, "Which tree is old? Answer with one word.", "Walnut"),
    (_TRAIN, "Which city does the train leave? Answer with one word.", "Lisbon"),
    (_TRAIN, "What colour is the dining car? Answer with one word.", "Red"),
)


@dataclass(frozen=True, kw_only=True)
class Mock(BaseBenchmark):
    """Two contexts with three and two questions, scored by exact match."""

    name: str = "mock"
    max_new_tokens: int = 8
    """Maximum length of an answer, in tokens."""

    title: ClassVar[str] = "five hand-made examples, for tests"
    licence: ClassVar[str] = "Apache-2.0"
    data: ClassVar[str] = "in the code"
    tasks: ClassVar = {"mock": Task(max_new_tokens=8, scorer=exact_match)}

    def __post_init__(self) -> None:
        """Also check the answer limit."""
        super().__post_init__()
        require_positive(self.name, "max_new_tokens", self.max_new_tokens)

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the five examples."""
        return [
            Example(
                id=f"mock-{number}",
                task="mock",
                context=context,
                question="\n" + question,
                references=(answer,),
                max_new_tokens=self.max_new_tokens,
            )
            for number, (context, question, answer) in enumerate(_QUESTIONS)
        ]

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Score by exact match, ignoring case, outer white space and a final full stop."""
        return self.tasks[example.task].score(example, prediction.text.strip().rstrip("."))
