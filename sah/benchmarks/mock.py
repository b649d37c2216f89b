"""Five tiny hand-made examples, to see the whole path in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.checks import chosen_subsets, require_positive
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scorers import exact_match
from sah.benchmarks.scoring import score_each
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

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
class Mock:
    """Two contexts with three and two questions, scored by exact match."""

    name: str = "mock"
    subset: str | None = None
    limit: int | None = None
    max_new_tokens: int = 8

    title: ClassVar[str] = "five hand-made examples, for tests"
    licence: ClassVar[str] = "Apache-2.0"
    data: ClassVar[str] = "in the code"
    score_name: ClassVar[str] = "exact_match"

    def __post_init__(self) -> None:
        check_types(self)
        chosen_subsets("mock", self.subset, self.subsets())
        require_positive("mock", "limit", self.limit)
        require_positive("mock", "max_new_tokens", self.max_new_tokens)

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""
        return ("mock",)

    def available_subsets(self) -> tuple[str, ...]:
        """All of them."""
        return self.subsets()

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """The five examples, or `limit` of them."""
        examples = [
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
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Exact match, but for case, outer white space and a final full stop."""
        return score_each(
            lambda text, references, **_: exact_match(text.strip().rstrip("."), references),
            examples,
            predictions,
        )
