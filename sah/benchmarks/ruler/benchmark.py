"""RULER (rules, prompts and answer lengths of NVIDIA/RULER), for any length and tokenizer.

Random numbers come from Python's generator seeded per sample, so that a sample does not
depend on how many there are. Further deviations are named by the files of the tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sah.benchmarks.checks import chosen_subsets, require_context, require_positive
from sah.benchmarks.ruler.needles import NEEDLE_TASKS, needle_example
from sah.benchmarks.ruler.variable_tracking import variable_tracking_example
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scoring import contained_share, score_each
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

_Generator = Callable[[int, PromptTokenizer, int, int], Example]

_TASKS: dict[str, _Generator] = {
    **{name: partial(needle_example, name, task) for name, task in NEEDLE_TASKS.items()},
    "vt": variable_tracking_example,
}


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Each prompt is the longest that fits into `context_tokens`."""

    name: str = "ruler"
    subset: str | Sequence[str] | None = None
    """One task, a list of tasks, or None for all."""
    context_tokens: int = 1024
    """Prompt (chat template included) plus the answer's limit, in tokens of the run's model."""
    samples: int = 10
    """Examples per task."""
    limit: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        chosen_subsets("ruler", self.subset, self.subsets())
        for field in ("context_tokens", "samples", "limit"):
            require_positive("ruler", field, getattr(self, field))

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""
        return tuple(_TASKS)

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """Generate the examples.

        Raises:
            ConfigurationError: if context_tokens is more than the model takes, or less than
                a task needs.
        """
        require_context(self.context_tokens, tokenizer.max_tokens)
        tasks = chosen_subsets("ruler", self.subset, self.subsets())
        examples = [
            _TASKS[task](number, tokenizer, self.context_tokens, derive(seed, task, number))
            for task in tasks
            for number in range(self.samples)
        ]
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Mean share of the references that the answer contains, whatever the case."""
        return score_each(contained_share, examples, predictions)
