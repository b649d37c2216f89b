"""LongBench-v2 (arXiv:2412.15204): 503 multiple-choice questions on long texts."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sah.benchmarks.scorers import stated_choice
from sah.benchmarks.scorers.choices import stated_letter
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite
from sah.errors import DatasetError
from sah.types import Example, FollowUp

_FORMAT = 'Format your response as follows: "The correct answer is (insert answer here)".'
_STEP_BY_STEP = "Let’s think step by step:"
_OPENINGS = (
    "Please read the following text and answer the question below.\n\n",
    "Please read the following text and answer the questions below.\n\n",
)


@dataclass(frozen=True, kw_only=True)
class LongBenchV2(Suite):
    """Asked directly (`0shot`) or with reasoning (`cot`); averaged by difficulty and length too.

    The prompts are those of the official script, with the answer format in the user's message,
    where the data set places it at the start of the answer. `cot` asks twice: for the reasoning,
    and for the choice, with the reasoning in place of the text.
    """

    name: str = "longbench_v2"

    title: ClassVar[str] = "LongBench-v2, multiple choice"
    licence: ClassVar[str] = "Apache-2.0"
    tasks: ClassVar = {
        "0shot": Task(max_new_tokens=148, scorer=stated_choice, answer=stated_letter),
        "cot": Task(max_new_tokens=1044, scorer=stated_choice, answer=stated_letter),
    }

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="Xnhyacinth/LongBench-v2", config=subset)

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Write the prompt as the official script does.

        Raises:
            DatasetError: if the row does not have the texts that are moved.
        """
        made = super().example(row, subset, identifier, source)
        opening, official = _OPENINGS
        if not made.context.startswith(opening) or not made.answer_prefix.startswith(_FORMAT):
            raise DatasetError(
                f"{source}: {identifier} does not begin with {opening.strip()!r}, or its "
                f"answer_prefix not with {_FORMAT!r}; is this the data set published under this "
                "name?"
            )
        if subset == "0shot":
            return replace(made, question=made.question + _FORMAT, answer_prefix="")
        question = made.question + _STEP_BY_STEP
        return replace(
            made,
            context=official + made.context.removeprefix(opening),
            question=question,
            answer_prefix="",
            follow_up=FollowUp(
                before=f"{official}The text is too long and omitted here.\n\n{question} ",
                after=(
                    "\n\nBased on the above, what is the single, most likely answer choice? "
                    f"{_FORMAT}"
                ),
                max_new_tokens=self.tasks["0shot"].max_new_tokens,
            ),
        )

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the groups that the paper reports."""
        return {
            "groups": (
                f"difficulty {column(row, 'difficulty', source)}",
                f"length {column(row, 'length', source)}",
            )
        }
