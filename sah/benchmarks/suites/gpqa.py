"""GPQA (arXiv:2311.12022): expert-written multiple-choice questions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sah.benchmarks.scorers import choice_simple_evals, final_choice
from sah.benchmarks.scorers.choices import final_letter
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.reasoning import ANSWER_TOKENS
from sah.benchmarks.suites.rows import Row, Source, text_column
from sah.benchmarks.suites.suite import Suite
from sah.seeding import derive
from sah.types import Example, PromptTokenizer

_CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_INSTRUCTION = (
    "Answer the following multiple choice question. The last line of your response should be of "
    "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think "
    "step by step before answering.\n\n"
)
_TASK = Task(
    max_new_tokens=ANSWER_TOKENS,
    scorer=final_choice,
    details={"simple_evals": choice_simple_evals},
    answer=final_letter,
)


@dataclass(frozen=True, kw_only=True)
class Gpqa(Suite):
    """The prompt is that of OpenAI's simple-evals, without white space around question and choices.

    The order of the choices is drawn from the seed of the experiment and the question's record id.
    """

    name: str = "gpqa"

    title: ClassVar[str] = "GPQA, expert-written questions, multiple choice"
    licence: ClassVar[str] = "CC-BY-4.0; gated"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {"diamond": _TASK, "main": _TASK, "extended": _TASK}

    def source(self, subset: str) -> Source:
        """Return the configuration of the subset."""
        return Source(dataset="Idavidrein/gpqa", config=f"gpqa_{subset}", split="train", gated=True)

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Letter the choices of each question."""
        return [_lettered(example, seed) for example in super().make_examples(tokenizer, seed)]

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Make an example whose references are the choices, the correct one first."""
        texts = {
            "context": f"{_INSTRUCTION}{text_column(row, 'Question', source).strip()}\n\n",
            "question": "",
            "answers": [text_column(row, name, source).strip() for name in _CHOICES],
        }
        record = text_column(row, "Record ID", source)
        return super().example({**row, **texts}, subset, f"{subset}-{record}", source)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the domain of the question."""
        return {"groups": (f"domain {text_column(row, 'High-level domain', source)}",)}


def _lettered(example: Example, seed: int) -> Example:
    """Return an example that asks for the letter of the correct choice, the first reference."""
    record = example.id.removeprefix(f"{example.task}-")
    order = random.Random(derive(seed, "choices", record)).sample(range(4), 4)
    lines = [
        f"{letter}) {example.references[choice]}"
        for letter, choice in zip("ABCD", order, strict=True)
    ]
    return replace(example, question="\n".join(lines), references=("ABCD"[order.index(0)],))
