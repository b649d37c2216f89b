"""RULER's needle tasks: special magic numbers, words or UUIDs hidden in a long text.

Deviations from NVIDIA's scripts:
- The prose haystack is the King James Bible, starting at a random verse for each sample; theirs is
  a fixed collection of essays under copyright, which `benchmark.essays` selects.
- Essays are split into sentences by punctuation (theirs: nltk) and cut between sentences (theirs:
  between words).
- A queried key never occurs among the distractors by chance.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat
from typing import Literal

from sah.benchmarks.drawing import Kind, distinct, random_text
from sah.benchmarks.haystacks import NOISE, prose_from
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.ruler.tasks import TASKS
from sah.types import Example


@dataclass(frozen=True, kw_only=True)
class NeedleTask:
    """One of RULER's needle-in-a-haystack configurations."""

    haystack: Literal["noise", "prose", "needles"]
    keys: Kind = "words"
    values: Kind = "numbers"
    keys_hidden: int = 1
    values_per_key: int = 1
    keys_queried: int = 1


NEEDLE_TASKS = {
    "niah_single_1": NeedleTask(haystack="noise"),
    "niah_single_2": NeedleTask(haystack="prose"),
    "niah_single_3": NeedleTask(haystack="prose", values="uuids"),
    "niah_multikey_1": NeedleTask(haystack="prose", keys_hidden=4),
    "niah_multikey_2": NeedleTask(haystack="needles"),
    "niah_multikey_3": NeedleTask(haystack="needles", keys="uuids", values="uuids"),
    "niah_multivalue": NeedleTask(haystack="prose", values_per_key=4),
    "niah_multiquery": NeedleTask(haystack="prose", keys_hidden=4, keys_queried=4),
}

# RULER places a needle at one of 40 evenly spaced depths of a prose haystack, in per cent.
_DEPTHS = [round(100 * step / 39) for step in range(40)]


def needle_example(
    name: str,
    task: NeedleTask,
    number: int,
    budget: Budget,
    seed: int,
    essays: Sequence[str] | None = None,
) -> Example:
    """Generate one sample: needles, the question about them, and the largest haystack that fits.

    Args:
        name: name of the task.
        task: what is hidden, and in which haystack.
        number: number of the sample.
        budget: token budget of prompt and answer.
        seed: determines everything that is drawn.
        essays: sentences that replace the public-domain prose.

    Raises:
        ConfigurationError: if the needles do not fit into the budget.
    """
    draw = random.Random(seed)
    keys = distinct(task.keys_hidden, lambda: random_text(task.keys, draw))
    hidden = {
        key: [random_text(task.values, draw) for _ in range(task.values_per_key)] for key in keys
    }
    answers = {
        _needle(task.values, key, value): value for key, found in hidden.items() for value in found
    }
    needles = list(answers)
    draw.shuffle(needles)
    queried = draw.sample(keys, task.keys_queried)
    references = tuple(value for key in queried for value in hidden[key])
    haystack, estimates = budget.enough(_haystack(task, set(keys), draw, essays))
    placement = draw.getrandbits(63)

    def build(units: int) -> Example:
        text = _hide(task, needles, haystack[:units], random.Random(placement))
        return _example(f"{name}-{number}", name, task, text, queried, references)

    example = budget.fill(build, estimates, least=len(needles))
    missing = [needle for needle in needles if example.context.count(needle) != 1]
    assert not missing, f"{example.id}: {missing[0]!r} is not in the text exactly once"
    return budget.with_needles(example, answers)


def _haystack(
    task: NeedleTask, taken: set[str], draw: random.Random, essays: Sequence[str] | None
) -> Iterator[str]:
    """Yield units of text endlessly."""
    if task.haystack == "noise":
        yield from repeat(NOISE)
    if task.haystack == "prose":
        # Essays always start at the beginning, as for the published numbers.
        yield from cycle(essays) if essays else prose_from(draw.randrange(2**32))
    used = set(taken)
    while True:
        (key,) = distinct(1, lambda: random_text(task.keys, draw), used)
        used.add(key)
        yield _needle(task.values, key, random_text(task.values, draw))


def _hide(
    task: NeedleTask, needles: Sequence[str], haystack: Sequence[str], draw: random.Random
) -> str:
    units = list(haystack)
    if task.haystack == "prose":
        positions = [len(units) * depth // 100 for depth in draw.sample(_DEPTHS, len(needles))]
    else:
        positions = draw.sample(range(len(units)), len(needles))
    for position, needle in zip(sorted(positions, reverse=True), needles, strict=True):
        units.insert(position, needle)
    return (" " if task.haystack == "prose" else "\n").join(units)


def _example(
    identifier: str,
    name: str,
    task: NeedleTask,
    text: str,
    queried: Sequence[str],
    references: tuple[str, ...],
) -> Example:
    asked = ", ".join(queried[:-1]) + ", and " + queried[-1] if len(queried) > 1 else queried[0]
    several = task.keys_queried * task.values_per_key > 1
    kind = task.values if several else task.values.removesuffix("s")
    verb = "are" if several else "is"
    return Example(
        id=identifier,
        task=name,
        context=(
            f"{'Some' if several else 'A'} special magic {kind} {verb} hidden within the following "
            f"text. Make sure to memorize it. I will quiz you about the {kind} afterwards.\n"
            f"{text}\n"
        ),
        question=(
            f"What {'are all' if several else 'is'} the special magic {kind} for {asked} mentioned "
            "in the provided text?"
        ),
        answer_prefix=(
            f" The special magic {kind} for {asked} mentioned in the provided text {verb}"
        ),
        references=references,
        max_new_tokens=TASKS[name].max_new_tokens,
    )


def _needle(values: Kind, key: str, value: str) -> str:
    return f"One of the special magic {values} for {key} is: {value}."
