"""RULER as generated and published by others, with fixed samples and lengths."""

from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.ruler.tasks import PUBLISHED_TASKS
from sah.benchmarks.suites.rows import Row, Source, column
from sah.benchmarks.suites.suite import Suite
from sah.errors import ConfigurationError

_BY_LENGTH = dict.fromkeys(("4096", "8192", "16384"), "simonjegou/ruler")
_BY_TASK = {"16k": "xAlg-AI/att-hub-ruler-16k", "32k": "xAlg-AI/att-hub-ruler-32k"}


@dataclass(frozen=True, kw_only=True)
class RulerHub(Suite):
    """Thirteen tasks at one length; contexts are never cut, since that could remove the answer."""

    name: str = "ruler_hub"
    length: str | int = "4096"
    """4096, 8192 or 16384 (tokens of Llama 3.1), or 16k or 32k (another collection)."""

    title: ClassVar[str] = "RULER as published, 4k to 32k tokens"
    licence: ClassVar[str] = "Apache-2.0; essays, SQuAD and HotpotQA have their own"
    may_cut: ClassVar[bool] = False
    tasks: ClassVar = PUBLISHED_TASKS

    def __post_init__(self) -> None:
        """Also check the length."""
        super().__post_init__()
        if str(self.length) not in (*_BY_LENGTH, *_BY_TASK):
            raise ConfigurationError(
                f"benchmark.length={self.length!r} was not published; choose from "
                f"{', '.join((*_BY_LENGTH, *_BY_TASK))}, or benchmark=ruler for any other"
            )

    def source(self, subset: str) -> Source:
        """Return the configuration of the length or, in the other collection, of the task."""
        length = str(self.length)
        if length in _BY_TASK:
            return Source(dataset=_BY_TASK[length], config=subset, split=subset)
        return Source(dataset=_BY_LENGTH[length], config=length)

    def all_datasets(self) -> tuple[str, ...]:
        """Return the data sets of all lengths."""
        return tuple(dict.fromkeys((*_BY_LENGTH.values(), *_BY_TASK.values())))

    def belongs(self, row: Row, subset: str) -> bool:
        """Select the rows of the task: the configuration of a length has all tasks."""
        return bool(column(row, "task", self.source(subset)) == subset)
