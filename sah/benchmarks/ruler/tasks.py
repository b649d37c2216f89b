"""RULER's tasks with the published answer limits and scores."""

from collections.abc import Mapping

from sah.benchmarks.scorers import contained_any, contained_share
from sah.benchmarks.scoring import Task

_NEEDLES = (
    *("niah_single_1", "niah_single_2", "niah_single_3"),
    *("niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
    *("niah_multivalue", "niah_multiquery"),
)

PUBLISHED_TASKS: Mapping[str, Task] = {
    **dict.fromkeys(_NEEDLES, Task(max_new_tokens=128, scorer=contained_share)),
    "vt": Task(max_new_tokens=30, scorer=contained_share),
    "cwe": Task(max_new_tokens=120, scorer=contained_share),
    "fwe": Task(max_new_tokens=50, scorer=contained_share),
    "qa_1": Task(max_new_tokens=32, scorer=contained_any),
    "qa_2": Task(max_new_tokens=32, scorer=contained_any),
}

FACTBOOK_TASK = "qa_factbook"
"""Question answering over the World Factbook; replaces qa_1 and qa_2 if both lack their files."""

TASKS: Mapping[str, Task] = {
    **PUBLISHED_TASKS,
    FACTBOOK_TASK: Task(max_new_tokens=32, scorer=contained_any),
}
