"""InfiniteBench (arXiv:2402.13718): tasks of 100,000 tokens and more."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from sah.benchmarks.scorers import (
    character_f1_chinese,
    choice_kvpress,
    choice_openbmb,
    code_debug_kvpress,
    code_debug_openbmb,
    dialogue_kvpress,
    dialogue_openbmb,
    first_integer,
    first_number,
    key_value,
    last_integer,
    leading_integers,
    rouge_l_sum,
    token_f1,
)
from sah.benchmarks.scoring import Task
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite
from sah.errors import DatasetError

_OPTIONS = re.compile(r"\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)\Z")


@dataclass(frozen=True, kw_only=True)
class InfiniteBench(Suite):
    """One configuration per task, each scored by the official rule.

    Choices, bugs and dialogues are scored by kvpress's rules, which are kinder; the score by
    OpenBMB's own script is in the details.
    """

    name: str = "infinite_bench"

    title: ClassVar[str] = "InfiniteBench, beyond 100k tokens"
    licence: ClassVar[str] = "MIT"
    tasks: ClassVar = {
        "passkey": Task(max_new_tokens=26, scorer=first_integer),
        "kv_retrieval": Task(max_new_tokens=70, scorer=key_value),
        "number_string": Task(max_new_tokens=32, scorer=first_integer),
        "longdialogue_qa_eng": Task(
            max_new_tokens=60, scorer=dialogue_kvpress, details={"openbmb": dialogue_openbmb}
        ),
        "longbook_qa_eng": Task(max_new_tokens=60, scorer=token_f1),
        "longbook_choice_eng": Task(
            max_new_tokens=60, scorer=choice_kvpress, details={"openbmb": choice_openbmb}
        ),
        "longbook_sum_eng": Task(max_new_tokens=1220, scorer=rouge_l_sum),
        "longbook_qa_chn": Task(max_new_tokens=60, scorer=character_f1_chinese),
        "code_run": Task(max_new_tokens=25, scorer=last_integer),
        "code_debug": Task(
            max_new_tokens=25, scorer=code_debug_kvpress, details={"openbmb": code_debug_openbmb}
        ),
        "math_find": Task(max_new_tokens=23, scorer=first_number),
        "math_calc": Task(max_new_tokens=30020, scorer=leading_integers),
    }

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="MaxJeblick/InfiniteBench", config=subset)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Extract the options at the end of the question; an answer may quote one."""
        if self.tasks[subset].scorer not in (choice_kvpress, code_debug_kvpress):
            return {}
        found = _OPTIONS.search(column(row, "question", source))
        if found is None:
            raise DatasetError(f"a question of {source} does not end with options A to D")
        return {"options": found.groups()}
