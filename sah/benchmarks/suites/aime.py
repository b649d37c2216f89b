"""AIME: 30 competition problems a year, each answered by an integer from 0 to 999."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sah.benchmarks.scorers import competition_integer
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Source
from sah.benchmarks.suites.suite import Suite
from sah.types import Example, PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class Aime(Suite):
    """Problems answered at length; with `samples=k` the score is avg@k.

    Each of the k answers to a problem is an example; they differ if generation.temperature is
    above 0. `limit` counts answers, so that some problems may have fewer than k.
    """

    year: int
    samples: int = 1
    """Answers per problem."""

    title: ClassVar[str] = "AIME, 30 problems a year, integers from 0 to 999"
    licence: ClassVar[str] = "problems: MAA; see the data set's card"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {"aime": Task(max_new_tokens=32_000, scorer=competition_integer)}

    def source(self, subset: str) -> Source:
        """Return the data set of the year."""
        return Source(dataset=f"xAlg-AI/att-hub-aime{self.year}", config=f"aime{self.year}")

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return every problem `samples` times in a row, so that its answers share a prefill."""
        problems = super().make_examples(tokenizer, seed)
        if self.samples == 1:
            return problems
        return [
            replace(problem, id=f"{problem.id}-{number}")
            for problem in problems
            for number in range(self.samples)
        ]
