"""GSM8K (arXiv:2110.14168): grade school word problems, test split."""

from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.scorers import final_number
from sah.benchmarks.scorers.numbers import number_answer
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.reasoning import ANSWER_TOKENS, STEP_BY_STEP
from sah.benchmarks.suites.rows import Row, Source, text_column
from sah.benchmarks.suites.suite import Suite
from sah.errors import DatasetError
from sah.types import Example

_BEFORE_ANSWER = "####"


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Suite):
    """1,319 problems without solved examples, of which other harnesses show five or eight."""

    name: str = "gsm8k"

    title: ClassVar[str] = "GSM8K, grade school word problems"
    licence: ClassVar[str] = "MIT"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {
        "gsm8k": Task(max_new_tokens=ANSWER_TOKENS, scorer=final_number, answer=number_answer)
    }

    def source(self, subset: str) -> Source:
        """Return the test split of the configuration without Socratic questions."""
        return Source(dataset="openai/gsm8k", config="main")

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Ask for the answer in a box; the reference is the number that ends the solution.

        Raises:
            DatasetError: if the solution does not end with `#### number`.
        """
        solution = text_column(row, "answer", source)
        _, mark, answer = solution.rpartition(_BEFORE_ANSWER)
        if not mark or number_answer(answer) is None:
            raise DatasetError(
                f"{source}: the answer of {identifier} does not end with '#### ' and a number; is "
                "this the data set published under this name?"
            )
        texts = {
            "context": text_column(row, "question", source),
            "question": STEP_BY_STEP,
            "answer": answer.strip(),
        }
        return super().example(texts, subset, identifier, source)
