"""Random keys and values, of the kinds that RULER hides."""

import random
import string
import uuid
from collections.abc import Callable
from typing import Literal

from sah.benchmarks.haystacks import random_word

Kind = Literal["words", "numbers", "uuids"]


def random_text(kind: Kind, draw: random.Random) -> str:
    """Draw a key or value: two hyphenated words, a seven-digit number, or a UUID."""
    if kind == "numbers":
        return str(draw.randint(1_000_000, 9_999_999))
    if kind == "uuids":
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return random_word(draw)


def random_letters(count: int, draw: random.Random) -> str:
    """Draw `count` capital letters."""
    return "".join(draw.choices(string.ascii_uppercase, k=count))


def distinct(count: int, make: Callable[[], str], taken: set[str] | None = None) -> list[str]:
    """Draw `count` different texts, none of which is already taken."""
    found: dict[str, None] = {}
    while len(found) < count:
        text = make()
        if taken is None or text not in taken:
            found[text] = None
    return list(found)
