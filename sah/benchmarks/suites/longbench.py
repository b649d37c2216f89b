"""LongBench (arXiv:2308.14508): 21 tasks in two languages, and 13 with even lengths (`_e`)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sah.benchmarks.scorers import (
    classification,
    code_similarity,
    count,
    paragraph_retrieval,
    rouge_l,
    rouge_l_chinese,
    token_f1,
    token_f1_chinese,
)
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite

# Answer limits are the official ones plus 20 tokens, as in the data set. The official script uses
# no chat template for few-shot and code tasks.
_TASKS = {
    "narrativeqa": Task(max_new_tokens=148, scorer=token_f1),
    "qasper": Task(max_new_tokens=148, scorer=token_f1),
    "multifieldqa_en": Task(max_new_tokens=84, scorer=token_f1),
    "multifieldqa_zh": Task(max_new_tokens=84, scorer=token_f1_chinese),
    "hotpotqa": Task(max_new_tokens=52, scorer=token_f1),
    "2wikimqa": Task(max_new_tokens=52, scorer=token_f1),
    "musique": Task(max_new_tokens=52, scorer=token_f1),
    "dureader": Task(max_new_tokens=148, scorer=rouge_l_chinese),
    "gov_report": Task(max_new_tokens=532, scorer=rouge_l),
    "qmsum": Task(max_new_tokens=532, scorer=rouge_l),
    "multi_news": Task(max_new_tokens=532, scorer=rouge_l),
    "vcsum": Task(max_new_tokens=532, scorer=rouge_l_chinese),
    "trec": Task(max_new_tokens=84, scorer=classification, first_line=True, chat_template=False),
    "triviaqa": Task(max_new_tokens=52, scorer=token_f1, first_line=True, chat_template=False),
    "samsum": Task(max_new_tokens=148, scorer=rouge_l, first_line=True, chat_template=False),
    "lsht": Task(max_new_tokens=84, scorer=classification, first_line=True, chat_template=False),
    "passage_count": Task(max_new_tokens=52, scorer=count),
    "passage_retrieval_en": Task(max_new_tokens=52, scorer=paragraph_retrieval),
    "passage_retrieval_zh": Task(max_new_tokens=52, scorer=paragraph_retrieval),
    "lcc": Task(max_new_tokens=84, scorer=code_similarity, chat_template=False),
    "repobench-p": Task(max_new_tokens=84, scorer=code_similarity, chat_template=False),
}
_EVEN = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec"),
    *("triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)


@dataclass(frozen=True, kw_only=True)
class LongBench(Suite):
    """One configuration per task; scores of `_e` tasks are also averaged by length in words."""

    name: str = "longbench"

    title: ClassVar[str] = "LongBench, 21 tasks and 13 with even lengths"
    licence: ClassVar[str] = "MIT; parts have other licences"
    tasks: ClassVar = _TASKS | {f"{name}_e": replace(_TASKS[name]) for name in _EVEN}

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="Xnhyacinth/LongBench", config=subset)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the classes to choose from and, for `_e` tasks, the length bucket."""
        extras: dict[str, Any] = {}
        if self.tasks[subset].scorer is classification:
            extras["all_classes"] = tuple(column(row, "all_classes", source))
        if subset.endswith("_e"):
            words = int(column(row, "length", source))
            bucket = "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"
            extras["groups"] = (f"length {bucket}",)
        return extras
