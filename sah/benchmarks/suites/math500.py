"""MATH-500 (arXiv:2305.20050): 500 problems of MATH (arXiv:2103.03874)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sah.benchmarks.scorers import math_equivalence
from sah.benchmarks.scorers.equivalence import math_answer
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.reasoning import ANSWER_TOKENS, STEP_BY_STEP
from sah.benchmarks.suites.rows import Row, Source, column, text_column
from sah.benchmarks.suites.suite import Suite
from sah.types import Example


@dataclass(frozen=True, kw_only=True)
class Math500(Suite):
    """Problems without examples; averaged by subject and level too."""

    name: str = "math500"

    title: ClassVar[str] = "MATH-500, competition problems"
    licence: ClassVar[str] = "MATH: MIT; see the data set's card"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {
        "math500": Task(max_new_tokens=ANSWER_TOKENS, scorer=math_equivalence, answer=math_answer)
    }

    def source(self, subset: str) -> Source:
        """Return the only split."""
        return Source(dataset="HuggingFaceH4/MATH-500")

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Ask for the answer in a box."""
        texts = {"context": text_column(row, "problem", source), "question": STEP_BY_STEP}
        return super().example({**row, **texts}, subset, identifier, source)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the groups of the problem."""
        return {
            "groups": (
                f"subject {column(row, 'subject', source)}",
                f"level {column(row, 'level', source)}",
            )
        }
