"""LooGLE (arXiv:2311.04939): questions, clozes and summaries of long documents."""

from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.scorers import (
    bleu_1,
    bleu_4,
    cloze_exact,
    cloze_partial,
    meteor,
    rouge_1_recall,
    rouge_2_recall,
    rouge_l_recall,
)
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Source
from sah.benchmarks.suites.suite import Suite

_OVERLAP = {
    "rouge_1": rouge_1_recall,
    "rouge_2": rouge_2_recall,
    "bleu_1": bleu_1,
    "bleu_4": bleu_4,
    "meteor": meteor,
}


@dataclass(frozen=True, kw_only=True)
class LooGLE(Suite):
    """Scored by ROUGE-L recall; clozes by the share of masks filled exactly.

    The other automatic scores of the paper are in the details, except BERTScore and the scores
    given by a judge model.
    """

    name: str = "loogle"

    title: ClassVar[str] = "LooGLE, questions, clozes and summaries"
    licence: ClassVar[str] = "CC-BY-SA-4.0"
    tasks: ClassVar = {
        "shortdep_qa": Task(max_new_tokens=300, scorer=rouge_l_recall, details=_OVERLAP),
        "longdep_qa": Task(max_new_tokens=500, scorer=rouge_l_recall, details=_OVERLAP),
        "shortdep_cloze": Task(
            max_new_tokens=50, scorer=cloze_exact, details={"partial": cloze_partial}
        ),
        "longdep_summarization": Task(max_new_tokens=500, scorer=rouge_l_recall, details=_OVERLAP),
    }

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="simonjegou/loogle", config=subset)
