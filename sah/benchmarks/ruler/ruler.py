"""RULER (rules, prompts and answer lengths of NVIDIA/RULER), for any length and tokenizer.

Random numbers come from Python's generator seeded per sample, so that a sample does not
depend on how many there are. Further deviations are named by the files of the tasks.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from sah.benchmarks import haystacks
from sah.benchmarks.checks import chosen_subsets, require_context, require_positive
from sah.benchmarks.fitting import TokenCounts
from sah.benchmarks.ruler.needles import NEEDLE_TASKS, needle_example
from sah.benchmarks.ruler.prompt_budget import Budget
from sah.benchmarks.ruler.questions import factbook, hotpotqa, question_example, squad
from sah.benchmarks.ruler.variable_tracking import variable_tracking_example
from sah.benchmarks.ruler.words import common_words_example, frequent_words_example
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scorers import contained_any, contained_share
from sah.benchmarks.scoring import score_one
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

logger = logging.getLogger(__name__)

_FILES = {"qa_1": "squad", "qa_2": "hotpotqa"}
_SUBSTITUTE = "qa_factbook"
_TASKS = (*NEEDLE_TASKS, "vt", "cwe", "fwe", *_FILES, _SUBSTITUTE)


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Each prompt is the longest that fits into `context_tokens`."""

    name: str = "ruler"
    subset: str | Sequence[str] | None = None
    """One task, a list of tasks, or None for all that `available_subsets` names."""
    context_tokens: int = 1024
    """Prompt (chat template included) plus the answer's limit, in tokens of the run's model."""
    samples: int = 10
    """Examples per task."""
    limit: int | None = None
    essays: str | None = None
    """Where the prose haystack comes from: see `haystacks.essays`. None: public-domain prose."""
    squad: str | None = None
    """SQuAD's dev-v2.0.json, for qa_1."""
    hotpotqa: str | None = None
    """HotpotQA's hotpot_dev_distractor_v1.json, for qa_2."""

    title: ClassVar[str] = "RULER, generated for any length and tokenizer"
    licence: ClassVar[str] = "rules Apache-2.0; King James Bible and Factbook are public domain"
    data: ClassVar[str] = "generated"
    score_names: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys((*NEEDLE_TASKS, "vt", "cwe", "fwe"), "contained_share"),
        **dict.fromkeys((*_FILES, _SUBSTITUTE), "contained_any"),
    }
    answer_tokens: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(NEEDLE_TASKS, 128),
        "vt": 30,
        "cwe": 120,
        "fwe": 50,
        "qa_1": 32,
        "qa_2": 32,
        "qa_factbook": 32,
    }

    def __post_init__(self) -> None:
        check_types(self)
        for field in ("context_tokens", "samples", "limit"):
            require_positive("ruler", field, getattr(self, field))
        for task in self._chosen():
            if task in _FILES and getattr(self, _FILES[task]) is None:
                raise ConfigurationError(
                    f"benchmark.subset={task}: set benchmark.{_FILES[task]} to the published file "
                    f"it is made from, or choose {_SUBSTITUTE}, which is made of the World Factbook"
                )

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""
        return _TASKS

    def available_subsets(self) -> tuple[str, ...]:
        """The tasks that work as configured: `qa_factbook` stands in for qa without its file."""
        given = {task for task, field in _FILES.items() if getattr(self, field) is not None}
        missing = _FILES.keys() - given
        return tuple(
            task
            for task in _TASKS
            if task not in missing and (task != _SUBSTITUTE or missing == _FILES.keys())
        )

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """Generate the examples.

        Raises:
            ConfigurationError: if context_tokens is more than the model takes, or less than
                a task needs.
            DatasetError: if a file or package that a task is made of is missing.
        """
        require_context(self.context_tokens, tokenizer.max_tokens)
        budget = Budget(
            tokenizer=tokenizer,
            counts=TokenCounts(tokenizer),
            context_tokens=self.context_tokens,
        )
        if self.subset is None and _SUBSTITUTE in self._chosen():
            logger.info("ruler: %s in the place of qa_1 and qa_2, which need files", _SUBSTITUTE)
        examples = []
        for task in self._chosen():
            generate = self._generator(task, seed)
            examples += [
                generate(number, budget, derive(seed, task, number))
                for number in range(self.samples)
            ]
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Mean share of the references that the answer contains; for qa, whether it has any."""
        return [
            score_one(
                contained_any if example.task.startswith("qa_") else contained_share,
                example,
                prediction.text,
            )
            for example, prediction in zip(examples, predictions, strict=True)
        ]

    def _chosen(self) -> tuple[str, ...]:
        if self.subset is None:
            return self.available_subsets()
        return chosen_subsets("ruler", self.subset, self.subsets())

    def _generator(self, task: str, seed: int) -> Callable[[int, Budget, int], Example]:
        if task == "vt":
            return variable_tracking_example
        if task == "cwe":
            return common_words_example
        if task == "fwe":
            return frequent_words_example
        if task == _SUBSTITUTE:
            return partial(question_example, task, factbook(), seed)
        if task == "qa_1":
            return partial(question_example, task, squad(str(self.squad)), seed)
        if task == "qa_2":
            return partial(question_example, task, hotpotqa(str(self.hotpotqa)), seed)
        essays = None if self.essays is None else haystacks.essays(self.essays)
        return partial(needle_example, task, NEEDLE_TASKS[task], essays=essays)
