"""The base class of benchmarks: subsets, checks, limit, score loop and description."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar, NoReturn, Self

from sah.benchmarks.requirements import chosen_subsets, require_positive
from sah.benchmarks.sampling import limit_examples, repeat_examples
from sah.benchmarks.scoring import Task
from sah.content import content_of_fields
from sah.errors import ConfigurationError, DatasetError
from sah.types import Example, Prediction, PromptTokenizer, Score, Size
from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class BaseBenchmark(ABC):
    """Implements `sah.types.Benchmark` on top of `tasks` and `make_examples`.

    A subclass is a frozen dataclass whose fields are the options of its yaml. To offer `samples` or
    `context_tokens` as options, it declares them as fields.

    Raises:
        ValueError: at construction, if a field has the wrong type.
        ConfigurationError: at construction, for an unknown subset or a count below 1.
    """

    name: str
    subset: str | Sequence[str] | None = None
    """One subset, a list of subsets, or None for all."""
    limit: int | None = None
    """Maximum number of questions, drawn from all tasks in proportion; None means all."""
    repeats: int | None = None
    """Answers to each question, sampled independently; `limit` counts questions. None means one."""
    chat_template: bool | None = None
    """Whether prompts are written with the chat template of the model; None: as each task says."""
    context_tokens: int | None = field(default=None, init=False)
    """Longest prompt plus answer, in tokens of the model."""
    samples: int | None = field(default=None, init=False)
    """Samples per subset, for benchmarks that generate them."""

    content: Mapping[str, Any] | None = None
    """Digests of the files that other fields name, commits, and versions of data packages, as
    composed; other content is refused. None: nothing is checked."""

    tasks: ClassVar[Mapping[str, Task]] = {}
    """Answer limit and scorer by subset."""
    title: ClassVar[str] = ""
    licence: ClassVar[str] = "-"
    data: ClassVar[str] = "-"

    def __post_init__(self) -> None:
        check_types(self)
        if self.subsets():
            chosen_subsets(self.name, self.subset, self.subsets())
        require_positive(self.name, "limit", self.limit)
        require_positive(self.name, "repeats", self.repeats)
        require_positive(self.name, "context_tokens", self.context_tokens)
        require_positive(self.name, "samples", self.samples)

    @abstractmethod
    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return all examples of the `chosen` subsets, before `limit`."""

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """Return the examples of the chosen subsets, at most `limit`, each `repeats` times.

        Raises:
            ConfigurationError: if `chat_template` is true, but the model has none, or `repeats` is
                above 1 for a continuation.
            DatasetError: if the data are not those that the experiment was composed for.
        """
        if self.chat_template and not tokenizer.has_chat_template:
            raise ConfigurationError(
                "benchmark.chat_template=true, but the tokenizer of this model has no chat "
                "template; leave it null, or give one with +model.tokenizer_kwargs.chat_template"
            )
        examples = self.make_examples(_Measuring(tokenizer, self._with_template), seed)
        self._require_composed_content()
        limited = limit_examples(list(map(self._with_template, examples)), self.limit, seed)
        if any(example.is_continuation for example in limited):
            self._require_no_repeats()
        return repeat_examples(limited, self.repeats)

    def size(self, seed: int) -> Size:
        """Return the number of contexts and the limits of the answers; here from the examples.

        Raises:
            ConfigurationError: if examples are made for a tokenizer.
            DatasetError: if the data cannot be read.
        """
        examples = self.examples(_NoTokenizer(self.name), seed)
        return Size(
            contexts=sum(1 for _ in groupby(examples, key=lambda one: one.context)),
            token_limits=[0 if one.is_continuation else one.max_new_tokens for one in examples],
            follow_ups=sum(one.follow_up is not None for one in examples),
        )

    def _size_of(self, contexts: int, token_limits: Sequence[int]) -> Size:
        """Return the size of these contexts and answers, of which `limit` may keep any."""
        kept = sorted(token_limits, reverse=True)[: self.limit]
        return Size(contexts=min(contexts, len(kept)), token_limits=kept * (self.repeats or 1))

    def find_content(self) -> dict[str, Any]:
        """Return what `content` is now: of its fields, and of its packages."""
        content = self.content or {}
        packages = [f"pypi:{name}" for name in content.get("packages", ())]
        return content_of_fields(vars(self), [*content, *packages])

    def _require_composed_content(self) -> None:
        now = self.find_content() if self.content else {}
        for name, composed in (self.content or {}).items():
            # The commit is part of what was read.
            if name != "revision" and now.get(name) != composed:
                raise DatasetError(
                    f"benchmark.{name}={getattr(self, name, composed)!r} has changed since the "
                    f"experiment was composed (it was {composed}, now it is {now.get(name)}); "
                    "run it again to measure the new content, or restore the old one"
                )

    def _require_no_repeats(self) -> None:
        if self.repeats is not None and self.repeats > 1:
            raise ConfigurationError(
                f"{self.name}: benchmark.repeats={self.repeats}, but the loss of a continuation is "
                "measured, not sampled, and would be the same in every repeat; leave it null"
            )

    def _with_template(self, example: Example) -> Example:
        """Return an example with `chat_template` as configured, else as its task says."""
        wanted = self.chat_template
        if wanted is None:
            task = self.tasks.get(example.task)
            wanted = example.chat_template and (task is None or task.chat_template)
        return replace(example, chat_template=wanted and not example.is_continuation)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Return one score per example, in order."""
        return [
            replace(self.score_one(example, prediction), question_id=example.question_id)
            for example, prediction in zip(examples, predictions, strict=True)
        ]

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Score one answer with the scorer of its task."""
        return self.tasks[example.task].score(example, prediction.text)

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """Return the names that `subset` accepts: those of the tasks."""
        return tuple(cls.tasks)

    def available_subsets(self) -> tuple[str, ...]:
        """Return the subsets that work as configured; here all of them."""
        return self.subsets()

    def chosen(self) -> tuple[str, ...]:
        """Return the subsets asked for, in the benchmark's order."""
        if self.subset is None:
            return self.available_subsets()
        # Without the data, subsets may be unknown.
        known = self.subsets() or self.available_subsets()
        return chosen_subsets(self.name, self.subset, known)

    @classmethod
    def answer_limits(cls) -> Mapping[str, int]:
        """Return the default answer limit of each task."""
        return {name: task.max_new_tokens for name, task in cls.tasks.items()}

    @classmethod
    def score_names(cls) -> Mapping[str, str]:
        """Return the name of each task's scorer."""
        return {name: task.scorer.__name__ for name, task in cls.tasks.items()}

    @classmethod
    def without_chat_template(cls) -> tuple[str, ...]:
        """Return the tasks whose prompts have no chat template."""
        return tuple(name for name, task in cls.tasks.items() if not task.chat_template)

    def hub_datasets(self) -> tuple[str, ...]:
        """Return the Hugging Face data sets of the chosen subsets; here none."""
        return ()

    def is_here(self) -> bool:
        """Whether the data are on this machine; generated and packaged data always are."""
        return True

    def check_data(self) -> None:  # noqa: B027 (most benchmarks have no local data)
        """Check local data before anything expensive runs; raises DatasetError. Here nothing."""

    def revision_note(self) -> str:
        """Return nothing: there is no revision to pin."""
        return ""

    def fetch(self) -> str:
        """Return a note that there is nothing to download."""
        return f"{self.name} needs no download"

    def with_one_sample(self) -> Self:
        """Return a copy with `samples=1`, or itself if it has no samples."""
        return self if self.samples is None else replace(self, samples=1)


class _Measuring:
    """A tokenizer that measures prompts as they will be written, with or without a template."""

    def __init__(self, tokenizer: PromptTokenizer, written: Callable[[Example], Example]) -> None:
        self.max_tokens = tokenizer.max_tokens
        self.has_chat_template = tokenizer.has_chat_template
        self.token_counts = tokenizer.token_counts
        self._tokenizer = tokenizer
        self._written = written

    def prompt_length(self, example: Example) -> int:
        return self._tokenizer.prompt_length(self._written(example))


class _NoTokenizer:
    """Stands for the tokenizer where none is loaded: it refuses to count tokens."""

    max_tokens: int | None = None
    has_chat_template = True

    def __init__(self, benchmark: str) -> None:
        self._benchmark = benchmark

    def token_counts(self, texts: Sequence[str]) -> NoReturn:
        raise ConfigurationError(f"the examples of {self._benchmark} are made for a tokenizer")

    def prompt_length(self, example: Example) -> NoReturn:
        raise ConfigurationError(f"the examples of {self._benchmark} are made for a tokenizer")
