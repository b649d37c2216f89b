"""AIME: 30 competition problems a year, each answered by an integer from 0 to 999."""

from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.scorers import competition_integer
from sah.benchmarks.scorers.numbers import competition_answer
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Source
from sah.benchmarks.suites.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Aime(Suite):
    """Problems answered at length."""

    year: int

    title: ClassVar[str] = "AIME, 30 problems a year, integers from 0 to 999"
    licence: ClassVar[str] = "problems: MAA; see the data set's card"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = {
        "aime": Task(max_new_tokens=32_000, scorer=competition_integer, answer=competition_answer)
    }

    def source(self, subset: str) -> Source:
        """Return the data set of the year."""
        return Source(dataset=f"xAlg-AI/att-hub-aime{self.year}", config=f"aime{self.year}")
