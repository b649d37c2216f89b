"""The tuning split of a benchmark: examples that its measured examples never touch."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.errors import ConfigurationError, DatasetError
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score


@dataclass(frozen=True, kw_only=True)
class TuningSplit(BaseBenchmark):
    """Examples of another benchmark whose contexts are not among the measured ones.

    A benchmark that generates its examples generates others, from a seed of their own; an
    experiment that generates one of them again, which is unlikely, is refused when it starts. Of a
    data set, the split is drawn from the contexts that `limit` leaves out. Contexts, not questions,
    are split: two questions about one document are on the same side. Questions without a context
    are split by their text.
    """

    of: BaseBenchmark
    """The benchmark, configured as it is measured."""
    seeds: Sequence[int]
    """Seeds with which it is measured."""
    contexts: int = 2
    """Contexts per task."""
    context_tokens: int | None = field(default=None)

    title: ClassVar[str] = "Tuning split of another benchmark."

    def __post_init__(self) -> None:
        if not isinstance(self.of, BaseBenchmark):
            raise ConfigurationError(
                f"benchmark {type(self.of).__name__} does not derive from BaseBenchmark, so that "
                "no tuning split can be made of it; derive it from sah.benchmarks.base"
            )
        super().__post_init__()

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return all questions about `contexts` contexts of each task, or as many as there are.

        Raises:
            DatasetError: if the measured examples leave no context of a task.
        """
        if self.of.samples is not None:
            # Generating the measured ones too, only to see that they differ, may take minutes.
            return replace(self.of, limit=None, repeats=None, samples=self.contexts).examples(
                tokenizer, derive(seed, "tuning")
            )
        measured = [example for one in self.seeds for example in self.of.examples(tokenizer, one)]
        used = set(map(_context, measured))
        by_task: dict[str, list[Example]] = {example.task: [] for example in measured}
        for example in replace(self.of, limit=None, repeats=None).examples(tokenizer, seed):
            if _context(example) not in used and example.task in by_task:
                by_task[example.task].append(example)
        for task, left in by_task.items():
            if not left:
                raise DatasetError(
                    f"benchmark {self.of.name!r} has no context of {task!r} left to tune on, "
                    f"because the {len(used)} contexts that are measured are all there are; set "
                    "benchmark.limit to fewer questions, or match on another benchmark"
                )
        return [
            example for task, left in by_task.items() for example in self._drawn(left, seed, task)
        ]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Score as the benchmark does."""
        return self.of.score(examples, predictions)

    def check_data(self) -> None:
        """Check the data of the benchmark."""
        self.of.check_data()

    def _drawn(self, examples: Sequence[Example], seed: int, task: str) -> list[Example]:
        contexts = list(dict.fromkeys(map(_context, examples)))
        count = min(self.contexts, len(contexts))
        drawn = set(random.Random(derive(seed, "tuning", task)).sample(contexts, count))
        return [example for example in examples if _context(example) in drawn]


def of_config(
    benchmark: Mapping[str, Any], *, seeds: Sequence[int], contexts: int
) -> dict[str, Any]:
    """Return the configuration of the tuning split of a configured benchmark."""
    return {
        "_target_": f"{TuningSplit.__module__}.{TuningSplit.__qualname__}",
        "name": benchmark["name"],
        "subset": benchmark.get("subset"),
        "of": dict(benchmark),
        "seeds": list(seeds),
        "contexts": contexts,
    }


def _context(example: Example) -> str:
    """Return the text that no other side of a split may have."""
    return example.context if example.context.strip() else example.question
