"""RULER's needle tasks (arXiv:2404.06654; rules, prompts and answer lengths of NVIDIA/RULER).

Generated here for any length and tokenizer. Deviations from NVIDIA's scripts: the prose
haystack is the King James Bible, from a place drawn for each sample, where theirs is a fixed
collection of essays under copyright; a queried key never occurs among the distractors by
chance; random numbers come from Python's generator seeded per sample, so that a sample does
not depend on how many there are.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sah.benchmarks.checks import chosen_subsets, require_context, require_positive
from sah.benchmarks.fitting import fit_units
from sah.benchmarks.haystacks import NOISE, prose_from, random_word
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scoring import contained_share, score_each
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True, kw_only=True)
class NeedleTask:
    """One of RULER's needle-in-a-haystack configurations."""

    haystack: Literal["noise", "prose", "needles"]
    keys: Kind = "words"
    values: Kind = "numbers"
    keys_hidden: int = 1
    values_per_key: int = 1
    keys_queried: int = 1


_TASKS = {
    "niah_single_1": NeedleTask(haystack="noise"),
    "niah_single_2": NeedleTask(haystack="prose"),
    "niah_single_3": NeedleTask(haystack="prose", values="uuids"),
    "niah_multikey_1": NeedleTask(haystack="prose", keys_hidden=4),
    "niah_multikey_2": NeedleTask(haystack="needles"),
    "niah_multikey_3": NeedleTask(haystack="needles", keys="uuids", values="uuids"),
    "niah_multivalue": NeedleTask(haystack="prose", values_per_key=4),
    "niah_multiquery": NeedleTask(haystack="prose", keys_hidden=4, keys_queried=4),
}

_MAX_NEW_TOKENS = 128

# RULER puts needles at one of 40 evenly spaced depths of a prose haystack, in per cent.
_DEPTHS = [round(100 * step / 39) for step in range(40)]


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Needles in haystacks: each prompt is the longest that fits into `context_tokens`."""

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
            needle_example(
                task,
                _TASKS[task],
                number,
                tokenizer,
                self.context_tokens,
                derive(seed, task, number),
            )
            for task in tasks
            for number in range(self.samples)
        ]
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Mean share of the references that the answer contains, whatever the case."""
        return score_each(contained_share, examples, predictions)


def needle_example(
    name: str,
    task: NeedleTask,
    number: int,
    tokenizer: PromptTokenizer,
    context_tokens: int,
    seed: int,
) -> Example:
    """Generate one sample: needles, the question about them, and the largest haystack that fits."""
    draw = random.Random(seed)
    keys = _distinct(task.keys_hidden, lambda: _random_text(task.keys, draw))
    hidden = {
        key: [_random_text(task.values, draw) for _ in range(task.values_per_key)] for key in keys
    }
    needles = [_needle(task.values, key, value) for key, found in hidden.items() for value in found]
    draw.shuffle(needles)
    queried = draw.sample(keys, task.keys_queried)
    references = tuple(value for key in queried for value in hidden[key])
    # More than can fit: no unit is shorter than four tokens.
    most = max(len(needles), context_tokens // 4)
    haystack = _haystack(task, most, set(keys), draw)
    placement = draw.getrandbits(63)

    def build(units: int) -> Example:
        place = random.Random(placement)
        text = _hide(task, needles, haystack[:units], place)
        return _example(f"{name}-{number}", name, task, text, queried, references)

    return fit_units(
        build,
        tokenizer.token_counts(haystack),
        tokenizer,
        context_tokens=context_tokens,
        least=len(needles),
    )


def _haystack(task: NeedleTask, units: int, taken: set[str], draw: random.Random) -> list[str]:
    if task.haystack == "noise":
        return [NOISE] * units
    if task.haystack == "prose":
        return prose_from(draw.randrange(2**32), units)
    keys = _distinct(units, lambda: _random_text(task.keys, draw), taken)
    return [_needle(task.values, key, _random_text(task.values, draw)) for key in keys]


def _hide(
    task: NeedleTask, needles: Sequence[str], haystack: Sequence[str], place: random.Random
) -> str:
    units = list(haystack)
    if task.haystack == "prose":
        positions = [len(units) * depth // 100 for depth in place.sample(_DEPTHS, len(needles))]
    else:
        positions = place.sample(range(len(units)), len(needles))
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
        max_new_tokens=_MAX_NEW_TOKENS,
    )


def _needle(values: Kind, key: str, value: str) -> str:
    return f"One of the special magic {values} for {key} is: {value}."


def _random_text(kind: Kind, draw: random.Random) -> str:
    if kind == "numbers":
        return str(draw.randint(1_000_000, 9_999_999))
    if kind == "uuids":
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return random_word(draw)


def _distinct(count: int, make: Callable[[], str], taken: set[str] | None = None) -> list[str]:
    """Draw until there are `count` texts, all different and none of those taken."""
    found: dict[str, None] = {}
    while len(found) < count:
        text = make()
        if taken is None or text not in taken:
            found[text] = None
    return list(found)
