"""Your own examples, from a file with one JSON object per line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sah.benchmarks import scorers
from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.requirements import require_positive
from sah.benchmarks.scoring import Scorer, Task
from sah.benchmarks.suites.rows import read_json_lines
from sah.errors import ConfigurationError, DatasetError
from sah.types import Example, Prediction, PromptTokenizer, Score

_REQUIRED = ("context", "question", "references")
_KNOWN = (*_REQUIRED, "id", "task", "answer_prefix", "max_new_tokens", "extras")


@dataclass(frozen=True, kw_only=True)
class JsonLines(BaseBenchmark):
    """Rows with `context`, `question` and `references` (a string or a list of strings).

    Optional are `id`, `task`, `answer_prefix`, `max_new_tokens`, and `extras`: keyword arguments
    of the metric. `subset` chooses values of `task`.
    """

    name: str = "jsonl"
    path: str
    """The file."""
    metric: str = "token_f1"
    """A scorer of `sah.benchmarks.scorers`."""
    max_new_tokens: int = 64
    """Answer limit of rows that do not set their own."""
    context_tokens: int | None = None
    """Longest prompt plus answer; longer contexts lose their middle. None: the model's limit."""

    title: ClassVar[str] = "your own examples"
    licence: ClassVar[str] = "yours"
    data: ClassVar[str] = "a .jsonl file"

    def __post_init__(self) -> None:
        """Also check the metric and the answer limit."""
        super().__post_init__()
        require_positive(self.name, "max_new_tokens", self.max_new_tokens)
        if self.metric not in scorers.__all__:
            raise ConfigurationError(
                f"benchmark.metric={self.metric!r} is not a scorer; choose from "
                f"{', '.join(scorers.__all__)}"
            )

    @classmethod
    def score_names(cls) -> Mapping[str, str]:
        """Return the name of the option that chooses the scorer."""
        return {"": "benchmark.metric"}

    def available_subsets(self) -> tuple[str, ...]:
        """Return the tasks in the file.

        Raises:
            DatasetError: if the file cannot be read.
        """
        return tuple(dict.fromkeys(_task(row) for row in self._rows()))

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the rows of the chosen tasks as examples.

        Raises:
            DatasetError: naming the line and what is wrong with it.
            ConfigurationError: if the file has no such task.
        """
        rows = self._rows()
        tasks = dict.fromkeys(_task(row) for row in rows)
        chosen = {self.subset} if isinstance(self.subset, str) else set(self.subset or tasks)
        if not chosen <= tasks.keys():
            raise ConfigurationError(
                f"benchmark.subset={self.subset!r}: {self.path} has no such task; choose from "
                f"{', '.join(tasks)}, or null for all"
            )
        return [
            self._example(row, number)
            for number, row in enumerate(rows, start=1)
            if _task(row) in chosen
        ]

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Score one answer with the metric."""
        scorer: Scorer = getattr(scorers, self.metric)
        task = Task(max_new_tokens=self.max_new_tokens, scorer=scorer)
        return task.score(example, prediction.text)

    def _rows(self) -> list[Mapping[str, Any]]:
        file = Path(self.path).expanduser()
        try:
            # A null means that the field is absent.
            rows: list[Mapping[str, Any]] = [
                {name: value for name, value in row.items() if value is not None}
                for row in read_json_lines(file)
            ]
        except OSError as error:
            raise DatasetError(
                f"benchmark.path={self.path!r} cannot be read: {error.strerror}"
            ) from error
        if not rows:
            raise DatasetError(f"benchmark.path={self.path!r} has no rows")
        for number, row in enumerate(rows, start=1):
            missing = [name for name in _REQUIRED if name not in row]
            unknown = sorted(row.keys() - set(_KNOWN))
            if missing or unknown:
                what = f"lacks {missing}" if missing else f"has unknown fields {unknown}"
                raise DatasetError(
                    f"{self.path} row {number} {what}; the fields are {', '.join(_KNOWN)}"
                )
        return rows

    def _example(self, row: Mapping[str, Any], number: int) -> Example:
        for name in ("context", "question", "answer_prefix"):
            if not isinstance(row.get(name, ""), str):
                raise self._wrong(number, name, "a string", row[name])
        references = row["references"]
        if isinstance(references, str):
            references = [references]
        if not isinstance(references, list) or not all(_is_plain(item) for item in references):
            raise self._wrong(number, "references", "a string or a list of strings", references)
        for name in ("id", "task"):
            if not _is_plain(row.get(name, "")):
                raise self._wrong(number, name, "a string or a number", row[name])
        if not isinstance(row.get("extras") or {}, dict):
            raise self._wrong(number, "extras", "an object", row["extras"])
        limit = row.get("max_new_tokens", self.max_new_tokens)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise self._wrong(number, "max_new_tokens", "a whole number of at least 1", limit)
        return Example(
            id=str(row.get("id", number)),
            task=_task(row),
            context=row["context"],
            question=row["question"],
            answer_prefix=row.get("answer_prefix", ""),
            references=tuple(str(item) for item in references),
            max_new_tokens=limit,
            extras=dict(row.get("extras") or {}),
            may_cut=True,
            max_tokens=self.context_tokens,
        )

    def _wrong(self, number: int, name: str, expected: str, value: Any) -> DatasetError:
        text = repr(value)
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        return DatasetError(f"{self.path} row {number}: {name} must be {expected}, got {shown}")


def _is_plain(value: Any) -> bool:
    """Whether a value is a string or a number, but not a boolean."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _task(row: Mapping[str, Any]) -> str:
    return str(row.get("task", "jsonl"))
