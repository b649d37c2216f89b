"""ZeroSCROLLS (arXiv:2305.14196): ten tasks whose test references are not public.

The rows on the Hub have no answers, so predictions get no score; only their length in words is
recorded. To get a score, submit the predictions to the benchmark's site, or set benchmark.path to
rows with references.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from sah.benchmarks.scorers import (
    concordance_index,
    exponential_similarity,
    first_choice,
    rouge_geometric_mean,
    token_f1_unaccented,
)
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite
from sah.types import Example, Prediction, Score


def _words(prediction: str, *_: Any, **_extras: Any) -> float:
    return float(len(prediction.split()))


def _task(max_new_tokens: int, scorer: Any) -> Task:
    return Task(max_new_tokens=max_new_tokens, scorer=scorer, details={"words": _words})


@dataclass(frozen=True, kw_only=True)
class ZeroScrolls(Suite):
    """All tasks in one table.

    Rows with references get the official score. For a summary task it is the mean over examples of
    the geometric mean of three ROUGE scores; the official script takes the geometric mean of the
    three means.
    """

    name: str = "zero_scrolls"

    title: ClassVar[str] = "ZeroSCROLLS; test references are not public"
    licence: ClassVar[str] = "MIT; parts have other licences"
    tasks: ClassVar = {
        "gov_report": _task(1024, rouge_geometric_mean),
        "summ_screen_fd": _task(512, rouge_geometric_mean),
        "qmsum": _task(512, rouge_geometric_mean),
        "squality": _task(512, rouge_geometric_mean),
        "qasper": _task(128, token_f1_unaccented),
        "narrative_qa": _task(64, token_f1_unaccented),
        "quality": _task(10, first_choice),
        "musique": _task(32, token_f1_unaccented),
        "space_digest": _task(36, exponential_similarity),
        "book_sum_sort": _task(256, concordance_index),
    }

    def source(self, subset: str) -> Source:
        """Return the one table of all tasks."""
        return Source(dataset="simonjegou/zero_scrolls")

    def belongs(self, row: Row, subset: str) -> bool:
        """Select the rows of the task."""
        return bool(column(row, "task", self.source(subset)) == subset)

    def references(self, row: Row, source: Source) -> tuple[str, ...]:
        """Return no reference where the answer is empty, as published."""
        return tuple(filter(None, super().references(row, source)))

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Score the answer if there are references; otherwise only count its words."""
        if example.references:
            return super().score_one(example, prediction)
        return Score(
            example_id=example.id,
            task=example.task,
            score=None,
            details={"words": _words(prediction.text)},
        )
