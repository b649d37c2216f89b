"""InfiniteBench (arXiv:2402.13718): tasks of 100,000 tokens and more."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from sah.benchmarks.scorers import (
    bug_choice,
    character_f1_chinese,
    contained_any,
    first_integer,
    first_number,
    key_value,
    last_choice,
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
    """One configuration per task, each scored by the official rule."""

    name: str = "infinite_bench"

    title: ClassVar[str] = "InfiniteBench, beyond 100k tokens"
    licence: ClassVar[str] = "MIT"
    tasks: ClassVar = {
        "passkey": Task(max_new_tokens=26, scorer=first_integer),
        "kv_retrieval": Task(max_new_tokens=70, scorer=key_value),
        "number_string": Task(max_new_tokens=32, scorer=first_integer),
        "longdialogue_qa_eng": Task(max_new_tokens=60, scorer=contained_any),
        "longbook_qa_eng": Task(max_new_tokens=60, scorer=token_f1),
        "longbook_choice_eng": Task(max_new_tokens=60, scorer=last_choice),
        "longbook_sum_eng": Task(max_new_tokens=1220, scorer=rouge_l_sum),
        "longbook_qa_chn": Task(max_new_tokens=60, scorer=character_f1_chinese),
        "code_run": Task(max_new_tokens=25, scorer=last_integer),
        "code_debug": Task(max_new_tokens=25, scorer=bug_choice),
        "math_find": Task(max_new_tokens=23, scorer=first_number),
        "math_calc": Task(max_new_tokens=30020, scorer=leading_integers),
    }

    def source(self, subset: str) -> Source:
        """Return the configuration of the same name."""
        return Source(dataset="MaxJeblick/InfiniteBench", config=subset)

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Extract the options at the end of the question; an answer may quote one."""
        if self.tasks[subset].scorer not in (last_choice, bug_choice):
            return {}
        found = _OPTIONS.search(column(row, "question", source))
        if found is None:
            raise DatasetError(f"a question of {source} does not end with options A to D")
        return {"options": found.groups()}
