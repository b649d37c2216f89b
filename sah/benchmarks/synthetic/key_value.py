"""Key-value retrieval over a JSON object (Lost in the Middle, arXiv:2307.03172).

Prompt, random UUIDs, order of the records and score are those of nelson-liu/lost-in-the-middle
(`kv_retrieval`, MIT); InfiniteBench's kv_retrieval (arXiv:2402.13718) is the same task at 100k
tokens. Deviations:
- The object has as many records as fit into the budget; theirs have 75, 140 or 300.
- The record asked for lies at depths that spread evenly over the samples, whatever their number;
  theirs is moved to the positions that the user names.
- `Corresponding value:` begins the model's turn; theirs ends the prompt. Without a chat template
  it is the same text.
- `questions` asks several questions about one context; theirs is 1.
- `words` has pairs of words as keys and values. No other text of the object contains the value.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from sah.benchmarks.drawing import Kind, random_text
from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.requirements import require_positive
from sah.benchmarks.scorers import contained_any
from sah.benchmarks.scoring import Task
from sah.seeding import derive
from sah.types import Example

_TASK = Task(max_new_tokens=100, scorer=contained_any)
_KINDS: Mapping[str, Kind] = {"uuids": "uuids", "words": "words"}
# Multiples of the golden ratio, modulo 1, spread evenly over [0, 1) however many there are.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True)
class KeyValue(GeneratedBenchmark):
    """The value of a key in a JSON object that fills the budget."""

    name: str = "key_value"
    questions: int = 1
    """Questions on each of the `samples` contexts, about different keys."""

    title: ClassVar[str] = "key-value retrieval, generated; rules of Lost in the Middle"
    licence: ClassVar[str] = "rules MIT"
    tasks: ClassVar = dict.fromkeys(_KINDS, _TASK)

    def __post_init__(self) -> None:
        """Also check the number of questions."""
        super().__post_init__()
        require_positive(self.name, "questions", self.questions)

    @property
    def answers_per_sample(self) -> int:
        """`questions`."""
        return self.questions

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task.

        Raises:
            DatasetError: if wonderwords is missing for `words`.
        """
        first_depth = random.Random(derive(seed, task, "depth")).random()
        return partial(_examples, task, self.questions, first_depth)


def _examples(
    task: str, questions: int, first_depth: float, number: int, budget: Budget, seed: int
) -> list[Example]:
    """Generate one context with as many records as fit, and the questions about it."""
    draw = random.Random(seed)

    def make() -> str:
        return random_text(_KINDS[task], draw)

    texts = _unrelated(2 * questions, make)
    values = texts[questions:]
    asked = dict(zip(texts[:questions], values, strict=True))
    others, estimates = budget.enough(_records(make, texts, values))
    depths = [
        (first_depth + _GOLDEN_RATIO * (number * questions + place)) % 1
        for place in range(questions)
    ]
    longest = max(asked, key=lambda key: budget.counts.of([_question(key)]))

    def build(count: int) -> Example:
        rows = others[:count]
        records = [_record(key, value) for key, value in asked.items()]
        for depth, record in sorted(zip(depths, records, strict=True), reverse=True):
            rows.insert(int(depth * (count + 1)), record)
        return Example(
            id="",
            task=task,
            context=(
                "Extract the value corresponding to the specified key in the JSON object below.\n\n"
                "JSON data:\n{" + ",\n ".join(rows) + "}\n\n"
            ),
            question=_question(longest),
            answer_prefix="\nCorresponding value:",
            references=(asked[longest],),
            max_new_tokens=_TASK.max_new_tokens,
        )

    filled = budget.fill(build, estimates, least=1)
    examples = []
    for place, (key, value) in enumerate(asked.items()):
        example = replace(
            filled,
            id=f"{task}-{number}-{place}",
            question=_question(key),
            references=(value,),
        )
        examples.append(budget.with_needles(example, {_record(key, value): value}))
    return examples


def _unrelated(count: int, make: Callable[[], str]) -> list[str]:
    """Draw texts none of which contains another."""
    found: list[str] = []
    while len(found) < count:
        text = make()
        if not any(text in other or other in text for other in found):
            found.append(text)
    return found


def _records(make: Callable[[], str], taken: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Yield records endlessly, with keys that differ and no text that contains a given value."""
    keys = set(taken)
    while True:
        key, value = make(), make()
        if key not in keys and not any(given in text for text in (key, value) for given in values):
            keys.add(key)
            yield _record(key, value)


def _record(key: str, value: str) -> str:
    return f'"{key}": "{value}"'


def _question(key: str) -> str:
    return f'Key: "{key}"'
