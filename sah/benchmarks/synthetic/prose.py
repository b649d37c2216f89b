"""Public-domain prose without the words of what is hidden in it, and places for needles."""

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from sah.benchmarks.haystacks import prose_from


def prose_without(words: Iterable[str], start: int) -> Iterator[str]:
    """Yield verses endlessly from verse `start` on, without those that have one of the words.

    A word that begins with one of them counts too: `bird` leaves out `birds`.
    """
    beginnings = "|".join(map(re.escape, sorted(words)))
    found = re.compile(rf"\b(?:{beginnings})", re.IGNORECASE).search
    return (verse for verse in prose_from(start) if not found(verse))


def random_depths(count: int, draw: random.Random) -> list[float]:
    """Draw sorted depths in [0, 1), which are the same for every length of the text."""
    return sorted(draw.random() for _ in range(count))


def hide(needles: Sequence[str], verses: Sequence[str], depths: Sequence[float]) -> str:
    """Insert needles between verses, each at its depth, in order."""
    places = [int(depth * (len(verses) + 1)) for depth in depths]
    parts: list[str] = []
    done = 0
    for needle, place in zip(needles, places, strict=True):
        parts += [*verses[done:place], needle]
        done = place
    return " ".join([*parts, *verses[done:]])
