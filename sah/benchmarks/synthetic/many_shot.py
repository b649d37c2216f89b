"""Classification by examples in the context, with many labels, after LongICLBench (2404.02060).

Not the published data: requests to a customer service are generated here, as BANKING77's are, with
20, 50 or 100 intents. As in TIGER-AI-Lab/LongICLBench, the examples are in rounds of one for each
label, all questions of a context share its examples, and the first line of the answer must be the
label, ignoring case. Deviations:
- Labels are three-digit codes by default, drawn for each context, so that only the examples tell
  what they mean (theirs: names of intents, as with `labels=names`).
- The order of the labels is drawn for each round, and the last round may be cut short.
- The prompts are worded here, the answer limit is 20 tokens (theirs: 100), and no label is listed
  before the examples.
Many-shot learning with long contexts is also measured in arXiv:2404.11018 and arXiv:2405.00200.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from sah.benchmarks.drawing import distinct
from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.requirements import require_positive
from sah.benchmarks.scorers import exact_match
from sah.benchmarks.scoring import Task
from sah.benchmarks.synthetic.intents import INTENTS, utterance
from sah.seeding import derive
from sah.types import Example

Labels = dict[tuple[str, str], str]

_LABELS = {f"{count}_labels": count for count in (20, 50, 100)}
_INSTRUCTION = (
    "Each of the following requests to a customer service has a label for its intent. Give the "
    "label of the last request, written exactly as in the examples.\n\n"
)


@dataclass(frozen=True, kw_only=True)
class ManyShot(GeneratedBenchmark):
    """Requests to be labelled as in the examples; as many examples as fit."""

    name: str = "many_shot"
    labels: Literal["codes", "names"] = "codes"
    """Whether labels are numbers without a meaning, or name the intent."""
    questions: int = 5
    """Samples that share the examples of one context."""

    title: ClassVar[str] = "classification by many examples, generated; after LongICLBench"
    licence: ClassVar[str] = "texts Apache-2.0; rules MIT"
    tasks: ClassVar = dict.fromkeys(
        _LABELS, Task(max_new_tokens=20, scorer=exact_match, first_line=True)
    )

    def __post_init__(self) -> None:
        """Also check the number of questions."""
        super().__post_init__()
        require_positive(self.name, "questions", self.questions)

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task."""

        def generate(number: int, budget: Budget, _: int) -> Sequence[Example]:
            if number % self.questions:
                return []  # made with the first question of its context
            return shared_context(self, task, seed, number, budget)

        return generate


def shared_context(
    benchmark: ManyShot, task: str, seed: int, first: int, budget: Budget
) -> list[Example]:
    """Generate the questions about one context, after the examples that they share.

    Args:
        benchmark: number of questions a context, number of samples, and kind of labels.
        task: tells the number of labels.
        seed: of the experiment; determines the context, with the task and its number.
        first: number of the sample that asks the first question.
        budget: token budget of prompt and answer.

    Raises:
        ConfigurationError: if one example of each label does not fit into the budget.
    """
    draw = random.Random(derive(seed, task, "context", first // benchmark.questions))
    labels = _labels(benchmark.labels, _LABELS[task], draw)
    intents = list(labels)
    asked = [draw.choice(intents) for _ in range(benchmark.questions)]
    texts = [utterance(intent, draw) for intent in asked]
    examples, estimates = budget.enough(_rounds(labels, set(texts), draw))

    def build(count: int, index: int) -> Example:
        return Example(
            id=f"{task}-{first + index}",
            task=task,
            context=_INSTRUCTION + "".join(examples[:count]),
            question=f"request: {texts[index]}\n",
            answer_prefix="label:",
            references=(labels[asked[index]],),
            max_new_tokens=ManyShot.tasks[task].max_new_tokens,
            metadata={"examples": count},
        )

    # All questions get the context in which the longest of them fits.
    lengths = [budget.tokenizer.prompt_length(build(0, index)) for index in range(len(texts))]
    longest = lengths.index(max(lengths))
    fitted = budget.fill(lambda count: build(count, longest), estimates, least=len(labels))
    questions = min(benchmark.questions, benchmark.samples - first)
    return [build(fitted.metadata["examples"], index) for index in range(questions)]


def _labels(kind: str, count: int, draw: random.Random) -> Labels:
    """Draw intents and their labels."""
    intents = draw.sample(INTENTS, count)
    if kind == "names":
        return {intent: "_".join(intent) for intent in intents}
    codes = distinct(count, lambda: str(draw.randint(100, 999)))
    return dict(zip(intents, codes, strict=True))


def _rounds(labels: Labels, asked: set[str], draw: random.Random) -> Iterator[str]:
    """Yield examples endlessly, each request once, in rounds of one for each label."""
    used = set(asked)
    while True:
        for intent in draw.sample(list(labels), len(labels)):
            (text,) = distinct(1, partial(utterance, intent, draw), used)
            used.add(text)
            yield f"request: {text}\nlabel: {labels[intent]}\n"
