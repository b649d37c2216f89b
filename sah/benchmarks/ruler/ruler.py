"""RULER for any length and tokenizer, with NVIDIA/RULER's rules, prompts and answer limits.

The files of the tasks name their deviations.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sah.benchmarks import haystacks
from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.ruler.needles import NEEDLE_TASKS, needle_example
from sah.benchmarks.ruler.questions import factbook, hotpotqa, question_example, squad
from sah.benchmarks.ruler.tasks import FACTBOOK_TASK, TASKS
from sah.benchmarks.ruler.variable_tracking import variable_tracking_example
from sah.benchmarks.ruler.words import common_words_example, frequent_words_example
from sah.content import digest
from sah.errors import ConfigurationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ruler(GeneratedBenchmark):
    """RULER's tasks; each prompt is the longest that fits into `context_tokens`."""

    name: str = "ruler"
    essays: str | None = None
    """Source of the prose haystack, see `haystacks.essays`; None uses public-domain prose."""
    squad: str | None = None
    """SQuAD's dev-v2.0.json, for qa_1."""
    hotpotqa: str | None = None
    """HotpotQA's hotpot_dev_distractor_v1.json, for qa_2."""

    title: ClassVar[str] = "RULER, generated for any length and tokenizer"
    licence: ClassVar[str] = "rules Apache-2.0; King James Bible and Factbook are public domain"
    tasks: ClassVar = TASKS

    def __post_init__(self) -> None:
        """Also check that each question-answering task has its file."""
        super().__post_init__()
        for task in self.chosen():
            option, file = self._files().get(task, ("", ""))
            if file is None:
                raise ConfigurationError(
                    f"benchmark.subset={task}: set benchmark.{option} to the published file it is "
                    f"made from, or choose {FACTBOOK_TASK}, which is made from the World Factbook"
                )

    def available_subsets(self) -> tuple[str, ...]:
        """Return the tasks that work as configured.

        A question-answering task needs its file; `qa_factbook` replaces them if both are missing.
        """
        missing = {task for task, (_, file) in self._files().items() if file is None}
        replaced = missing == self._files().keys()
        left_out = missing if replaced else missing | {FACTBOOK_TASK}
        return tuple(task for task in TASKS if task not in left_out)

    def _files(self) -> dict[str, tuple[str, str | None]]:
        """Return option and value of the file that each published question-answering task needs."""
        return {"qa_1": ("squad", self.squad), "qa_2": ("hotpotqa", self.hotpotqa)}

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task.

        Raises:
            DatasetError: if a file or package that the task is made from is missing.
        """
        if task == "vt":
            return variable_tracking_example
        if task == "cwe":
            return common_words_example
        if task == "fwe":
            return frequent_words_example
        if task == FACTBOOK_TASK:
            if self.subset is None:
                logger.info("ruler: %s replaces qa_1 and qa_2, which need files", FACTBOOK_TASK)
            return partial(question_example, task, factbook(), seed)
        if task == "qa_1":
            return partial(question_example, task, squad(*_file(self.squad)), seed)
        if task == "qa_2":
            return partial(question_example, task, hotpotqa(*_file(self.hotpotqa)), seed)
        essays = None if self.essays is None else haystacks.essays(self.essays)
        return partial(needle_example, task, NEEDLE_TASKS[task], essays=essays)


def _file(path: str | None) -> tuple[str, str | None]:
    """Return the path of a file and its digest."""
    return str(path), digest(Path(str(path)).expanduser())
