"""Facts that must be found in a long text and put together, by BABILong's rules (arXiv:2406.10149).

Not the published data: stories of bAbI's kind are simulated here. As in booydar/babilong, the facts
lie in order at random places between the sentences of a long text; the prompt is an instruction,
solved examples, the text in tags and the question; the answer limit is 20 tokens; and the first
sentence of the answer must name the right class and no other. Deviations:
- The text is the King James Bible without verses that have a word of the stories (theirs: PG-19).
- All instructions and examples are worded here and ask for one word; for qa1 to qa3 theirs ask for
  a sentence.
- Classes are compared as words. Theirs are parts of words, so that `none` is never right in qa7,
  since it also names `one`.
- bAbI's stories have up to hundreds of facts, and the same fact may occur twice.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar

from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.scorers import only_classes
from sah.benchmarks.scoring import Task
from sah.benchmarks.synthetic.prose import hide, prose_without, random_depths
from sah.benchmarks.synthetic.simulated_world import Vocabulary
from sah.benchmarks.synthetic.stories import RULES, Story, tell_story
from sah.seeding import derive
from sah.types import Example

_VOCABULARY = Vocabulary(
    people=("Mary", "John", "Daniel", "Sandra"),
    places=("bathroom", "bedroom", "garden", "hallway", "kitchen", "office"),
    things=("apple", "football", "milk"),
)
_GIVERS = replace(_VOCABULARY, people=("Bill", "Fred", "Jeff", "Mary"))
# Of the solved examples, so that they are not part of the story.
_EXAMPLES = Vocabulary(
    people=("Charlie", "Judith", "Alan"),
    places=("balcony", "garage", "cellar", "attic"),
    things=("bottle", "lamp", "pillow"),
)

_LATEST = " If a person was in several places, only the latest counts."
_CARRIED = " What a person carries moves along, and stays where it is put down."
_WHERE = "the whereabouts of people"
_WHAT = "the objects that people carry"
_ASKS: Mapping[str, tuple[str, str, str]] = {
    "qa1_one_fact": (_WHERE, _LATEST, "the place"),
    "qa2_two_facts": (f"{_WHERE} and {_WHAT}", _CARRIED, "the place"),
    "qa3_three_facts": (f"{_WHERE} and {_WHAT}", _CARRIED, "the place"),
    "qa4_two_argument_relations": ("the directions between places", "", "the place"),
    "qa5_three_argument_relations": (
        "people who give objects to each other",
        "",
        "the person or the object",
    ),
    "qa6_yes_no": (_WHERE, _LATEST, "yes or no"),
    "qa7_counting": (_WHAT, "", "none, one, two or three"),
    "qa8_lists": (_WHAT, "", "the objects, separated by commas, or with nothing"),
}
"""By task: what the facts are about, how they are to be read, and what the answer is."""


@dataclass(frozen=True, kw_only=True)
class ReasoningHaystack(GeneratedBenchmark):
    """Questions on facts that lie scattered in prose; the longest text that fits."""

    name: str = "reasoning_haystack"

    title: ClassVar[str] = "bAbI-like facts scattered in prose, generated; rules of BABILong"
    licence: ClassVar[str] = "rules Apache-2.0; King James Bible is public domain"
    tasks: ClassVar = dict.fromkeys(RULES, Task(max_new_tokens=20, scorer=only_classes))

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task."""
        return partial(reasoning_example, task)


def reasoning_example(task: str, number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample: a story, hidden in as many verses as fit.

    Raises:
        ConfigurationError: if the story does not fit into the budget.
    """
    draw = random.Random(seed)
    vocabulary = vocabulary_of(task)
    story = tell_story(task, vocabulary, draw)
    depths = random_depths(len(story.facts), draw)
    words = {*vocabulary.people, *vocabulary.places, *vocabulary.things}
    verses, estimates = budget.enough(prose_without(words, draw.randrange(2**32)))

    def build(count: int) -> Example:
        text = hide(story.facts, verses[:count], depths)
        return Example(
            id=f"{task}-{number}",
            task=task,
            context=f"{_instruction(task)}\n\n<context>\n{text}\n</context>\n\n",
            question=f"Question: {story.question}",
            references=story.answers,
            max_new_tokens=ReasoningHaystack.tasks[task].max_new_tokens,
            extras={"all_classes": list(story.classes)},
        )

    example = budget.fill(build, estimates, least=1)
    return budget.with_needles(example, dict.fromkeys(story.support, ",".join(story.answers)))


def vocabulary_of(task: str) -> Vocabulary:
    """Return the names in the stories of a task."""
    return _GIVERS if task == "qa5_three_argument_relations" else _VOCABULARY


@cache
def _instruction(task: str) -> str:
    """Return the instruction of a task with two solved examples that have different answers."""
    about, reading, answer = _ASKS[task]
    draw = random.Random(derive(0, task))
    solved: list[Story] = []
    while len(solved) < 2:
        story = tell_story(task, _EXAMPLES, draw)
        if len(story.facts) <= 12 and story.answers not in [one.answers for one in solved]:
            solved.append(story)
    examples = "\n".join(
        f"<example>\n{' '.join(story.facts)} {story.question}\n"
        f"Answer: {','.join(story.answers)}\n</example>"
        for story in solved
    )
    return (
        f"Facts about {about} are hidden in the text below, and a question follows it. Answer the "
        f"question from these facts alone.{reading}\n\n{examples}\n\nAnswer only with {answer}. "
        "Write nothing else, and do not explain your answer."
    )
