"""AIME: 30 competition problems a year, each answered by an integer from 0 to 999."""

from dataclasses import dataclass, replace
from typing import ClassVar

from sah.benchmarks.checks import require_positive
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scorers import competition_integer
from sah.benchmarks.suites.rows import Source
from sah.benchmarks.suites.suite import Suite, Task
from sah.types import Example, PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class Aime(Suite):
    """Answered at length; with `samples` above 1 the score is avg@k.

    The k answers to a problem are examples of their own, which differ with
    generation.temperature above 0. `limit` counts answers: some problems may have fewer.
    """

    name: str
    year: int
    samples: int = 1
    """Answers to each problem."""

    title: ClassVar[str] = "AIME, 30 problems a year, integers from 0 to 999"
    licence: ClassVar[str] = "problems: MAA; see the data set's card"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {"aime": Task(max_new_tokens=32_000, scorer=competition_integer)}

    def __post_init__(self) -> None:
        """Check the number of samples too."""
        super().__post_init__()
        require_positive(self.name, "samples", self.samples)

    def source(self, subset: str) -> Source:
        """One data set a year, with one configuration."""
        return Source(dataset=f"xAlg-AI/att-hub-aime{self.year}", config=f"aime{self.year}")

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """Every problem `samples` times, one after the other, so that they share a context."""
        problems = Suite.examples(replace(self, limit=None), tokenizer, seed)
        if self.samples > 1:
            problems = [
                replace(problem, id=f"{problem.id}-{number}")
                for problem in problems
                for number in range(self.samples)
            ]
        return limit_examples(problems, self.limit, seed)
