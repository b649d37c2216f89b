"""Needles that share no word with the question, by NoLiMa's rules (arXiv:2502.05167).

Not the published data: associations, names and prompts are written here (NoLiMa's are under the
Adobe Research License). As in adobe-research/NoLiMa, the needle says something about a character,
common knowledge links it to the question in one hop or two, the character is named first or last,
and an answer that contains the character's name scores 1; the answer limit is 192 tokens.
Deviations:
- The text is the King James Bible, from a random verse on and without verses that have a word of
  needle or question (theirs: shuffled snippets of novels, filtered by a model).
- The depth of the needle is drawn for each sample (theirs: 26 depths for each needle).
- Names are compared ignoring case.
- Distractors are other needles of the same kind, about other characters (theirs: a sentence with
  words of the question).
"""

import random
import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.scorers import contained_any
from sah.benchmarks.scoring import Task
from sah.benchmarks.synthetic.associations import CATEGORIES, CHARACTERS, Association, Category
from sah.benchmarks.synthetic.prose import hide, prose_without, random_depths
from sah.errors import ConfigurationError
from sah.types import Example

_MOST_DISTRACTORS = 3
_CONTEXT = "A question about one of the characters follows this text.\n\n{text}\n\n"
_QUESTION = (
    "Question: {question} The text says it, or it follows from what the text says. Answer only "
    "with the name of the character."
)
_FUNCTION_WORDS = frozenset(
    (
        *("a", "about", "after", "all", "an", "and", "are", "as", "at", "be", "been", "before"),
        *("by", "can", "every", "for", "from", "has", "have", "in", "into", "is", "it", "lot"),
        *("never", "next", "of", "on", "only", "out", "that", "the", "there", "they", "to"),
        *("up", "was", "were", "when", "where", "which", "who", "with", "without"),
    )
)


@dataclass(frozen=True, kw_only=True)
class NoLiteralMatch(GeneratedBenchmark):
    """Questions about a character, answered by one sentence without a word of the question."""

    name: str = "no_literal_match"
    distractors: int = 0
    """Needles about other characters, of the same kind, in the same text; at most 3."""

    title: ClassVar[str] = "needles without a word of the question, generated; rules of NoLiMa"
    licence: ClassVar[str] = "texts Apache-2.0; King James Bible is public domain"
    tasks: ClassVar = dict.fromkeys(
        ("one_hop", "two_hop"), Task(max_new_tokens=192, scorer=contained_any)
    )

    def __post_init__(self) -> None:
        """Also check the number of distractors."""
        super().__post_init__()
        if not 0 <= self.distractors <= _MOST_DISTRACTORS:
            raise ConfigurationError(
                f"benchmark.distractors must be from 0 to {_MOST_DISTRACTORS}, got "
                f"{self.distractors}"
            )

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task."""
        return partial(association_example, task, self.distractors)


def association_example(
    task: str, distractors: int, number: int, budget: Budget, seed: int
) -> Example:
    """Generate one sample: a needle and distractors, hidden in as many verses as fit.

    Raises:
        ConfigurationError: if the needles do not fit into the budget.
    """
    draw = random.Random(seed)
    category, association = draw.choice(
        [
            (category, association)
            for category in CATEGORIES
            if task == "one_hop" or category.has_two_hops
            for association in category.associations
        ]
    )
    asked = _asked(task, association)
    others = [one for one in category.associations if _asked(task, one) != asked]
    is_inverted = draw.random() < 0.5
    told = [association, *draw.sample(others, distractors)]
    names = draw.sample(CHARACTERS, len(told))
    answers = {
        _needle(category, one, name, is_inverted, draw): name
        for one, name in zip(told, names, strict=True)
    }
    question = category.question.format(asked=asked)
    depths = random_depths(len(answers), draw)
    needles = draw.sample(list(answers), len(answers))
    words = content_words(" ".join([question, *needles])) | set(CHARACTERS)
    verses, estimates = budget.enough(prose_without(words, draw.randrange(2**32)))

    def build(count: int) -> Example:
        return Example(
            id=f"{task}-{number}",
            task=task,
            context=_CONTEXT.format(text=hide(needles, verses[:count], depths)),
            question=_QUESTION.format(question=question),
            references=(names[0],),
            max_new_tokens=NoLiteralMatch.tasks[task].max_new_tokens,
            extras={"groups": ["inverted order" if is_inverted else "default order"]},
        )

    return budget.with_needles(budget.fill(build, estimates, least=1), answers)


def content_words(text: str) -> set[str]:
    """Return the words of a text, in lower case, without function words."""
    return set(re.findall(r"[a-z]+", text.lower())) - _FUNCTION_WORDS


def _asked(task: str, association: Association) -> str:
    return association.asked if task == "one_hop" else association.beyond


def _needle(
    category: Category, association: Association, name: str, is_inverted: bool, draw: random.Random
) -> str:
    template = draw.choice(category.inverted if is_inverted else category.needles)
    text = template.format(name=name, hidden=association.hidden)
    return text[0].upper() + text[1:]
