"""AIME: 30 competition problems a year, each answered by an integer from 0 to 999."""

from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.scorers import competition_integer
from sah.benchmarks.scorers.numbers import competition_answer
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column, text_column
from sah.benchmarks.suites.suite import Suite
from sah.errors import ConfigurationError
from sah.types import Example

_YEARS = (2024, 2025, 2026)
# The wording of the data sets of 2024 and 2025, for which that of 2026 has columns only.
_PROBLEM = """Solve the following AIME (American Invitational Mathematics Examination) problem.

Problem: {problem}

Instructions:
- The answer should be an integer between 0 and 999
- You must wrap your final answer in \\boxed{{...}} format"""
_QUESTION = "What is the answer to this problem?"


@dataclass(frozen=True, kw_only=True)
class Aime(Suite):
    """Problems answered at length, in one wording for all years."""

    year: int

    title: ClassVar[str] = "AIME, 30 problems a year, integers from 0 to 999"
    licence: ClassVar[str] = "problems: MAA; see the data set's card"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {
        "aime": Task(max_new_tokens=32_000, scorer=competition_integer, answer=competition_answer)
    }

    def __post_init__(self) -> None:
        """Also check the year."""
        super().__post_init__()
        if self.year not in _YEARS:
            raise ConfigurationError(
                f"benchmark.year={self.year}: no data set of this year is known; choose from "
                f"{', '.join(map(str, _YEARS))}, or read your own with benchmark=jsonl"
            )

    def source(self, subset: str) -> Source:
        """Return the data set of the year."""
        if self.year == 2026:
            return Source(dataset="MathArena/aime_2026", split="train")
        return Source(dataset=f"xAlg-AI/att-hub-aime{self.year}", config=f"aime{self.year}")

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Write the prompt of 2026; the other data sets hold theirs."""
        if self.year == 2026:
            problem = text_column(row, "problem", source)
            row = {
                "context": _PROBLEM.format(problem=problem),
                "question": _QUESTION,
                "answer": str(column(row, "answer", source)),
            }
        return super().example(row, subset, identifier, source)
