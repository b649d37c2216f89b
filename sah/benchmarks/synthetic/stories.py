"""Stories with a question, of eight of bAbI's tasks (arXiv:1502.05698).

They are simulated here. A question is asked only if the facts have exactly one answer to it.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sah.benchmarks.synthetic.simulated_world import Action, Vocabulary, World

_NUMBERS = ("none", "one", "two", "three")
_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


class Asked(NamedTuple):
    """A question, its answer, and the indices of the facts that it follows from."""

    question: str
    answers: tuple[str, ...]
    support: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the stories of a task are made."""

    facts: tuple[int, int]
    """Least and usual greatest number of facts."""
    actions: tuple[Action, ...] = ()
    """What people do besides moving."""
    ask: Callable[[World], Asked | None]
    """Ask about the world; None if it has no question with one answer yet."""
    classes: Callable[[Vocabulary], tuple[str, ...]]
    """All answers of the task."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """Facts in order, and a question that they answer."""

    facts: Sequence[str]
    question: str
    answers: tuple[str, ...]
    """What the answer must name, all of it."""
    classes: tuple[str, ...]
    """The answers of the task that the question does not name."""
    support: Sequence[str]
    """The facts that the answer follows from."""


def tell_story(task: str, vocabulary: Vocabulary, draw: random.Random) -> Story:
    """Simulate a story of a task."""
    rule = RULES[task]
    world = World(vocabulary=vocabulary, draw=draw)
    least = draw.randint(*rule.facts)
    asked = None
    while asked is None:
        world.step(rule.actions)
        if len(world.facts) >= least:
            asked = rule.ask(world)
    in_question = set(re.findall(r"\w+", asked.question))
    return Story(
        facts=world.facts,
        question=asked.question,
        answers=asked.answers,
        classes=tuple(name for name in rule.classes(vocabulary) if name not in in_question),
        support=[world.facts[index] for index in sorted(set(asked.support))],
    )


def _where_is_a_person(world: World) -> Asked | None:
    person = world.draw.choice([one for one in world.vocabulary.people if one in world.stays])
    place, fact = world.stays[person][-1]
    return Asked(f"Where is {person}?", (place,), [fact])


def _where_is_a_thing(world: World) -> Asked | None:
    things = [one for one in world.vocabulary.things if one in world.stays]
    if not things:
        return None
    thing = world.draw.choice(things)
    place, fact = world.stays[thing][-1]
    return Asked(f"Where is the {thing}?", (place,), [world.handled[thing][-1], fact])


def _where_was_a_thing(world: World) -> Asked | None:
    found = []
    for thing in world.vocabulary.things:
        stays = world.stays.get(thing, [])
        visited = [stay.place for stay in stays]
        found += [
            (thing, before, after)
            for before, after in pairwise(stays)
            if visited.count(after.place) == 1
        ]
    if not found:
        return None
    thing, before, after = world.draw.choice(found)
    taken = max(fact for fact in world.handled[thing] if fact < after.fact)
    return Asked(
        f"Where was the {thing} before the {after.place}?",
        (before.place,),
        [before.fact, taken, after.fact],
    )


def _what_lies_where(world: World) -> Asked | None:
    """Replace what happened by two facts about three places in a row."""
    draw = world.draw
    one, middle, other = draw.sample(world.vocabulary.places, 3)
    direction = draw.choice(list(_OPPOSITE))

    def fact(place: str, reference: str) -> str:
        if draw.random() < 0.5:
            return f"The {place} is {direction} of the {reference}."
        return f"The {reference} is {_OPPOSITE[direction]} of the {place}."

    world.facts[:] = [fact(one, middle), fact(middle, other)]
    draw.shuffle(world.facts)
    if draw.random() < 0.5:
        return Asked(f"What is {direction} of the {middle}?", (one,), [0, 1])
    return Asked(f"What is the {middle} {direction} of?", (other,), [0, 1])


def _who_gave_what(world: World) -> Asked | None:
    found = []
    for giver, thing, receiver, fact in world.gifts:
        alike = [
            (f"What did {giver} give to {receiver}?", thing, (giver, None, receiver)),
            (f"Who did {giver} give the {thing} to?", receiver, (giver, thing, None)),
            (f"Who gave the {thing} to {receiver}?", giver, (None, thing, receiver)),
            (f"Who gave the {thing}?", giver, (None, thing, None)),
            (f"Who received the {thing}?", receiver, (None, thing, None)),
        ]
        for question, answer, pattern in alike:
            matching = [
                gift
                for gift in world.gifts
                if all(name in (None, part) for name, part in zip(pattern, gift[:3], strict=True))
            ]
            if len(matching) == 1:
                found.append(Asked(question, (answer,), [fact]))
    return world.draw.choice(found) if found else None


def _is_a_person_there(world: World) -> Asked | None:
    person = world.draw.choice([one for one in world.vocabulary.people if one in world.stays])
    here, fact = world.stays[person][-1]
    is_true = world.draw.random() < 0.5
    others = [place for place in world.vocabulary.places if place != here]
    place = here if is_true else world.draw.choice(others)
    return Asked(f"Is {person} in the {place}?", ("yes" if is_true else "no",), [fact])


def _how_many_things(world: World) -> Asked | None:
    person = world.draw.choice(world.vocabulary.people)
    if person not in world.handled:
        return None
    held = world.held_by(person)
    return Asked(
        f"How many objects is {person} carrying?", (_NUMBERS[len(held)],), world.handled[person]
    )


def _which_things(world: World) -> Asked | None:
    person = world.draw.choice(world.vocabulary.people)
    if person not in world.handled:
        return None
    held = tuple(world.held_by(person)) or ("nothing",)
    return Asked(f"What is {person} carrying?", held, world.handled[person])


def _places(vocabulary: Vocabulary) -> tuple[str, ...]:
    return vocabulary.places


_EVERYTHING: tuple[Action, ...] = ("grab", "drop", "give")

RULES: Mapping[str, Rule] = {
    "qa1_one_fact": Rule(facts=(2, 10), ask=_where_is_a_person, classes=_places),
    "qa2_two_facts": Rule(
        facts=(6, 14), actions=("grab", "drop"), ask=_where_is_a_thing, classes=_places
    ),
    "qa3_three_facts": Rule(
        facts=(10, 20), actions=("grab", "drop"), ask=_where_was_a_thing, classes=_places
    ),
    "qa4_two_argument_relations": Rule(facts=(0, 0), ask=_what_lies_where, classes=_places),
    "qa5_three_argument_relations": Rule(
        facts=(6, 14),
        actions=_EVERYTHING,
        ask=_who_gave_what,
        classes=lambda vocabulary: (*vocabulary.people, *vocabulary.things),
    ),
    "qa6_yes_no": Rule(facts=(2, 10), ask=_is_a_person_there, classes=lambda _: ("yes", "no")),
    "qa7_counting": Rule(
        facts=(6, 14), actions=_EVERYTHING, ask=_how_many_things, classes=lambda _: _NUMBERS
    ),
    "qa8_lists": Rule(
        facts=(6, 14),
        actions=_EVERYTHING,
        ask=_which_things,
        classes=lambda vocabulary: (*vocabulary.things, "nothing"),
    ),
}
"""By task, with bAbI's number."""
