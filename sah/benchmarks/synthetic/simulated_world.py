"""A simulated world of bAbI's kind: people who walk between places, and take, drop and give things.

The sentences and the vocabulary are bAbI's (arXiv:1502.05698). No sentence is told twice, so that
each fact has one place in a text.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Action = Literal["grab", "drop", "give"]

_MOVES = ("went to", "moved to", "journeyed to", "travelled to", "went back to")
_GRABS = ("took the {} there", "got the {} there", "picked up the {} there", "grabbed the {} there")
_DROPS = ("dropped the {}", "left the {}", "put down the {}", "discarded the {}")
_GIFTS = ("gave the {} to {}", "handed the {} to {}", "passed the {} to {}")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The names that a story uses."""

    people: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]


class Stay(NamedTuple):
    """A place where somebody or something is, and the index of the fact that led there."""

    place: str
    fact: int


class Gift(NamedTuple):
    """A thing that was handed over, and the index of the fact."""

    giver: str
    thing: str
    receiver: str
    fact: int


@dataclass(kw_only=True)
class World:
    """What has happened so far."""

    vocabulary: Vocabulary
    draw: random.Random
    facts: list[str] = field(default_factory=list)
    stays: dict[str, list[Stay]] = field(default_factory=dict)
    """Where each person and each thing was, one place after the other."""
    holders: dict[str, str] = field(default_factory=dict)
    """Who holds each thing that is held."""
    handled: dict[str, list[int]] = field(default_factory=dict)
    """Indices of the facts about each thing, and about the things of each person."""
    gifts: list[Gift] = field(default_factory=list)

    def step(self, actions: Sequence[Action]) -> None:
        """Let a person move, or do one of the actions where it is possible."""
        person = self.draw.choice(self.vocabulary.people)
        if not (actions and self.draw.random() < 0.5 and self._handle(person, actions)):
            self._move(person)

    def place_of(self, one: str) -> str | None:
        """Return where a person or thing is; None if no fact says it."""
        return self.stays[one][-1].place if one in self.stays else None

    def held_by(self, person: str) -> list[str]:
        """Return the things that a person holds."""
        return [thing for thing, holder in self.holders.items() if holder == person]

    def _move(self, person: str) -> None:
        places = [place for place in self.vocabulary.places if place != self.place_of(person)]
        place = self.draw.choice(places)
        fact = self._tell([f"{person} {verb} the {place}." for verb in _MOVES])
        if fact is not None:
            for one in (person, *self.held_by(person)):
                self.stays.setdefault(one, []).append(Stay(place, fact))

    def _handle(self, person: str, actions: Sequence[Action]) -> bool:
        """Return whether one of the actions was possible."""
        if person not in self.stays:
            return False
        here = self.stays[person][-1]
        # A thing that was never touched is where it is first taken.
        free = [
            thing
            for thing in self.vocabulary.things
            if thing not in self.holders and self.place_of(thing) in (None, here.place)
        ]
        held = self.held_by(person)
        near = [
            other
            for other in self.vocabulary.people
            if other != person and self.place_of(other) == here.place
        ]
        candidates = {"grab": free, "drop": held, "give": held if near else []}
        possible = [action for action in actions if candidates[action]]
        if not possible:
            return False
        action = self.draw.choice(possible)
        thing = self.draw.choice(candidates[action])
        involved = [person, thing]
        if action == "give":
            receiver = self.draw.choice(near)
            involved.append(receiver)
            verbs = [verb.format(thing, receiver) for verb in _GIFTS]
        else:
            verbs = [verb.format(thing) for verb in (_GRABS if action == "grab" else _DROPS)]
        fact = self._tell([f"{person} {verb}." for verb in verbs])
        if fact is None:
            return False
        if action == "give":
            self.gifts.append(Gift(person, thing, receiver, fact))
            self.holders[thing] = receiver
        elif action == "grab":
            self.holders[thing] = person
            self.stays.setdefault(thing, [here])
        else:
            del self.holders[thing]
        for one in involved:
            self.handled.setdefault(one, []).append(fact)
        return True

    def _tell(self, sentences: Sequence[str]) -> int | None:
        """Add one of the sentences; return its index, or None if all of them were told before."""
        new = [sentence for sentence in sentences if sentence not in self.facts]
        if not new:
            return None
        self.facts.append(self.draw.choice(new))
        return len(self.facts) - 1
