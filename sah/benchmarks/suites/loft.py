"""LOFT's retrieval-augmented generation (arXiv:2406.13121): a whole corpus in the context."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from sah.benchmarks.scorers import list_coverage, list_exact, list_f1, list_subspan
from sah.benchmarks.scoring import Scorer, Task
from sah.benchmarks.suites.rows import Row, Source
from sah.benchmarks.suites.suite import Suite


def _task(**details: Scorer) -> Task:
    """Add the scores of the answers that Google's script reads."""
    scores = {"subspan_em": list_subspan, "em": list_exact, **details}
    strict = {f"google_{name}": partial(scorer, strict=True) for name, scorer in scores.items()}
    return Task(
        max_new_tokens=256,
        scorer=list_subspan,
        details={"em": list_exact, **details, **strict},
    )


_ONE_ANSWER = _task(f1=list_f1)
_SEVERAL_ANSWERS = _task(coverage=list_coverage)
_SEVERAL = ("qampari", "quest")


@dataclass(frozen=True, kw_only=True)
class Loft(Suite):
    """Five data sets at three lengths, test split; scored by subspan exact match.

    Answers count even if they are not a list. `google_…` of the details are the scores of the
    answers that Google's script reads.
    """

    name: str = "loft"

    title: ClassVar[str] = "LOFT, retrieval-augmented generation, 32k to 1M tokens"
    licence: ClassVar[str] = "Apache-2.0; parts have other licences"
    tasks: ClassVar = {
        f"{name}_{length}": _SEVERAL_ANSWERS if name in _SEVERAL else _ONE_ANSWER
        for name in ("nq", "hotpotqa", "musique", *_SEVERAL)
        for length in ("32k", "128k", "1m")
    }

    def source(self, subset: str) -> Source:
        """Return the data set of the corpus and length."""
        return Source(dataset=f"f20180301/loft-rag-{subset.replace('_', '-')}")

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Say whether all references are asked for, or any one."""
        return {"several": subset.split("_")[0] in _SEVERAL}
