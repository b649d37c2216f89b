"""LongBench-v2 (arXiv:2412.15204): 503 multiple-choice questions on long texts."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sah.benchmarks.scorers import stated_choice
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite


@dataclass(frozen=True, kw_only=True)
class LongBenchV2(Suite):
    """Asked directly (`0shot`) or with reasoning (`cot`); averaged by difficulty and length too."""

    name: str = "longbench_v2"

    title: ClassVar[str] = "LongBench-v2, multiple choice"
    licence: ClassVar[str] = "Apache-2.0"
    tasks: ClassVar = {
        "0shot": Task(max_new_tokens=148, scorer=stated_choice),
        "cot": Task(max_new_tokens=1044, scorer=stated_choice),
    }

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="Xnhyacinth/LongBench-v2", config=subset)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the groups that the paper reports."""
        return {
            "groups": (
                f"difficulty {column(row, 'difficulty', source)}",
                f"length {column(row, 'length', source)}",
            )
        }
