"""The base class of benchmarks that are generated for a length and a tokenizer."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.fitting import TokenCounts
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.requirements import require_context
from sah.seeding import derive
from sah.types import Example, PromptTokenizer, Size

Generate = Callable[[int, Budget, int], Example | Sequence[Example]]
"""`generate(number, budget, seed)` makes the sample of this number: an example, or several with the
same context. The seed is its own."""


@dataclass(frozen=True, kw_only=True)
class GeneratedBenchmark(BaseBenchmark):
    """Samples that fill a token budget, drawn from a seed.

    Each sample has its own seed for Python's generator, so that a sample does not depend on how
    many there are. A subclass defines `generator`.
    """

    context_tokens: int = 1024
    """Prompt, chat template included, plus the answer limit, in tokens of the model."""
    samples: int = 10
    """Contexts per task."""

    data: ClassVar[str] = "generated"

    @property
    def answers_per_sample(self) -> int:
        """Questions on the context of a sample."""
        return 1

    def size(self, seed: int) -> Size:
        """Return the size from the number of samples; each has its own context, or shares one."""
        samples = self.samples * len(self.chosen())
        limits = [
            self.tasks[task].max_new_tokens
            for task in self.chosen()
            for _ in range(self.samples * self.answers_per_sample)
        ]
        return self._size_of(samples, limits)

    @abstractmethod
    def generator(self, task: str, seed: int) -> Generate:
        """Return the function that makes the samples of a task.

        Args:
            task: one of the `chosen` tasks.
            seed: of the experiment, for what all samples of a task share.
        """

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Generate the examples, task by task.

        Raises:
            ConfigurationError: if `context_tokens` is more than the model takes or less than a
                task needs.
            DatasetError: if a file or package that a task is made from is missing.
        """
        require_context(self.context_tokens, tokenizer.max_tokens)
        budget = Budget(
            tokenizer=tokenizer,
            counts=TokenCounts(tokenizer),
            context_tokens=self.context_tokens,
        )
        examples: list[Example] = []
        for task in self.chosen():
            generate = self.generator(task, seed)
            for number in range(self.samples):
                made = generate(number, budget, derive(seed, task, number))
                examples += [made] if isinstance(made, Example) else made
        return examples
