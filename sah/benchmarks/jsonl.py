"""Your own examples, from a file with one JSON object per line."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from sah.benchmarks import scorers
from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.json_lines import plain_numbers, read_numbered_lines
from sah.benchmarks.requirements import require_positive
from sah.benchmarks.scorers.choices import final_letter, stated_letter
from sah.benchmarks.scorers.equivalence import math_answer
from sah.benchmarks.scorers.numbers import competition_answer, number_answer
from sah.benchmarks.scoring import Scorer, Task
from sah.errors import ConfigurationError, DatasetError
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import unstorable

_REQUIRED = ("context", "question", "references")
_KNOWN = (*_REQUIRED, "id", "task", "answer_prefix", "max_new_tokens", "extras")
# The final answer that a metric compares; majority votes count it.
_ANSWERS = {
    "competition_integer": competition_answer,
    "final_choice": final_letter,
    "final_number": number_answer,
    "math_equivalence": math_answer,
    "stated_choice": stated_letter,
}


@dataclass(frozen=True, kw_only=True)
class JsonLines(BaseBenchmark):
    """Rows with `context`, `question` and `references` (a string or a list of strings).

    Optional are `id`, `task`, `answer_prefix`, `max_new_tokens`, and `extras`: keyword arguments
    of the metric. `subset` chooses values of `task`. A number among references, ids and tasks is
    the text that it is written as.
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
            DatasetError: if the file cannot be read, or a row is not valid.
        """
        return tuple(dict.fromkeys(example.task for example in self._all_examples()))

    def check_data(self) -> None:
        """Check every row, and that the file has the chosen tasks.

        Raises:
            DatasetError: naming the line and what is wrong with it.
            ConfigurationError: if the file has no such task.
        """
        self._chosen_examples()

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the rows of the chosen tasks as examples.

        Raises:
            DatasetError: naming the line and what is wrong with it.
            ConfigurationError: if the file has no such task.
        """
        return self._chosen_examples()

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Score one answer with the metric."""
        return self._task().score(example, prediction.text)

    def _task(self) -> Task:
        scorer: Scorer = getattr(scorers, self.metric)
        answer = _ANSWERS.get(self.metric)
        return Task(max_new_tokens=self.max_new_tokens, scorer=scorer, answer=answer)

    def _chosen_examples(self) -> list[Example]:
        examples = self._all_examples()
        tasks = dict.fromkeys(example.task for example in examples)
        subset = tasks if self.subset is None else self.subset
        chosen = {subset} if isinstance(subset, str) else set(subset)
        if not chosen or not chosen <= tasks.keys():
            raise ConfigurationError(
                f"benchmark.subset={self.subset!r}: {self.path} has no such task; choose from "
                f"{', '.join(tasks)}, or null for all"
            )
        return [example for example in examples if example.task in chosen]

    def _all_examples(self) -> list[Example]:
        file, examples = Path(self.path).expanduser(), []
        lines_of: dict[str, int] = {}
        try:
            for number, (line, row) in enumerate(read_numbered_lines(file), start=1):
                example = self._example(row, line, number)
                if example.id in lines_of:
                    raise DatasetError(
                        f"{self.path} lines {lines_of[example.id]} and {line} have the same id "
                        f"{example.id!r}; a row without an id has its number, here {number}"
                    )
                lines_of[example.id] = line
                examples.append(example)
        except OSError as error:
            raise DatasetError(
                f"benchmark.path={self.path!r} cannot be read: {error.strerror}; give a file with "
                "one JSON object per line"
            ) from error
        if not examples:
            raise DatasetError(f"benchmark.path={self.path!r} has no rows")
        return examples

    def _example(self, given: Mapping[str, Any], line: int, number: int) -> Example:
        for name in given:
            if name not in _KNOWN:
                similar = get_close_matches(name, _KNOWN, n=1)
                meant = f"did you mean {similar[0]!r}? " if similar else ""
                raise DatasetError(
                    f"{self.path} line {line} has the unknown field {name!r}; {meant}The fields "
                    f"are {', '.join(_KNOWN)}"
                )
        # A null means that the field is absent.
        row = {name: value for name, value in given.items() if value is not None}
        missing = [name for name in _REQUIRED if name not in row]
        if missing:
            raise DatasetError(
                f"{self.path} line {line} lacks {', '.join(missing)}; every row has "
                f"{', '.join(_REQUIRED)}"
            )
        for name in ("context", "question", "answer_prefix"):
            if not isinstance(row.get(name, ""), str):
                raise self._wrong(line, name, "a string", row[name])
        references = row["references"]
        if not isinstance(references, list):
            references = [references]
        if not references or not all(_is_plain(item) for item in references):
            expected = "a string or a list of at least one string"
            raise self._wrong(line, "references", expected, row["references"])
        for name in ("id", "task"):
            if not _is_plain(row.get(name, "")):
                raise self._wrong(line, name, "a string or a number", row[name])
        limit = row.get("max_new_tokens", self.max_new_tokens)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit < 2**63:
            raise self._wrong(line, "max_new_tokens", "a whole number of at least 1", limit)
        example = Example(
            id=str(row.get("id", number)),
            task=str(row.get("task", "jsonl")),
            context=row["context"],
            question=row["question"],
            answer_prefix=row.get("answer_prefix", ""),
            references=tuple(str(item) for item in references),
            max_new_tokens=limit,
            extras=self._extras(row.get("extras", {}), line),
            may_cut=True,
            max_tokens=self.context_tokens,
        )
        self._require_scorable(example, line)
        return example

    def _extras(self, value: Any, line: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(line, "extras", "an object", value)
        extras: dict[str, Any] = plain_numbers(value)
        known = {"groups"}.union(*(_keywords(getattr(scorers, name)) for name in scorers.__all__))
        for name in extras:
            if name not in known:
                raise DatasetError(
                    f"{self.path} line {line}: extras has {name!r}, which is a keyword of no "
                    f"metric; the keywords are {', '.join(sorted(known))}"
                )
        for _, problem in unstorable(extras, "extras"):
            raise DatasetError(f"{self.path} line {line}: a number in extras {problem}")
        groups = extras.get("groups", [])
        if not isinstance(groups, list) or not all(isinstance(one, str) for one in groups):
            raise self._wrong(line, "extras.groups", "a list of strings", groups)
        return extras

    def _require_scorable(self, example: Example, line: int) -> None:
        """Score an empty answer, so that a row that the metric cannot score costs no answer."""
        try:
            self._task().score(example, "")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.path} line {line}: the metric {self.metric} cannot score it with extras="
                f"{_short(example.extras)} and references={_short(list(example.references))}: "
                f"{error}"
            ) from error

    def _wrong(self, line: int, name: str, expected: str, value: Any) -> DatasetError:
        return DatasetError(
            f"{self.path} line {line}: {name} must be {expected}, got {_short(value)}"
        )


def _is_plain(value: Any) -> bool:
    """Whether a value is a string or a number, but not a boolean."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


@cache
def _keywords(scorer: Scorer) -> frozenset[str]:
    """Return the keywords of a scorer, without those that it only ignores."""
    parameters = inspect.signature(scorer).parameters.values()
    return frozenset(one.name for one in parameters if one.kind == one.KEYWORD_ONLY)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
