"""Code of Python's standard library without docstrings, and functions that can be described."""

import ast
import re
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sah.content import digest_of_files
from sah.errors import DatasetError

_LONGEST_FUNCTION_LINES = 40
_SHORTEST_DESCRIPTION_WORDS = 5
_PLAIN_WORDS = re.compile(r"[A-Z][a-z]*(?:,? [A-Za-z][a-z'-]*)*\.?")

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, kw_only=True)
class Described:
    """A function, and the first sentence of its docstring."""

    name: str
    description: str
    module: int
    """Index of its module."""
    first: int
    end: int
    """Its lines in the module: from `first` to before `end`."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """Modules as lines of code, each with its line break, and the functions to ask for."""

    modules: Sequence[Sequence[str]]
    functions: Sequence[Described]


def library_files() -> list[Path]:
    """Return the modules at the top of the standard library, but for those with an underscore.

    Raises:
        DatasetError: if there are none.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
    if not files:
        raise DatasetError(
            f"the standard library in {folder} has no .py files; use a Python that is installed "
            "with its sources"
        )
    return files


def library_digest() -> str:
    """Return the digest of the files that are read."""
    return digest_of_files(library_files())


@cache
def library(digest: str) -> Library:
    """Read the standard library.

    Args:
        digest: of its files; other files are another call.
    """
    modules, found = [], []
    names: Counter[str] = Counter()
    for number, file in enumerate(library_files()):
        with tokenize.open(file) as source:
            text = source.read()
        tree = ast.parse(text)
        documented = [node for node in ast.walk(tree) if isinstance(node, _Documented)]
        names.update(node.name for node in documented if not isinstance(node, ast.Module))
        lines, moved = _without_docstrings(text.splitlines(keepends=True), documented)
        modules.append([f"# Path: {file.name}\n", *lines])
        found += [
            Described(
                name=node.name,
                description=_first_sentence(ast.get_docstring(node) or ""),
                module=number,
                # The line with the path comes first.
                first=moved[_first_line(node) - 1] + 1,
                end=moved[node.end_lineno or node.lineno] + 1,
            )
            for node in documented
            if isinstance(node, _Function) and _does_something(node)
        ]
    descriptions = Counter(one.description for one in found)
    functions = [
        one
        for one in found
        if names[one.name] == descriptions[one.description] == 1
        and one.end - one.first <= _LONGEST_FUNCTION_LINES
        and not one.name.startswith("_")
        and _describes_without_naming(one.description, one.name)
    ]
    return Library(modules=modules, functions=functions)


def _without_docstrings(
    lines: list[str], documented: Sequence[ast.AST]
) -> tuple[list[str], list[int]]:
    """Return the lines without docstrings, and the new number of each line and of the end."""
    replaced: dict[int, str] = {}
    for node in documented:
        assert isinstance(node, _Documented)
        if ast.get_docstring(node, clean=False) is None:
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        alone = lines[first][: docstring.col_offset].isspace() or docstring.col_offset == 0
        if alone and not lines[last].encode()[docstring.end_col_offset :].strip():
            replaced.update(dict.fromkeys(range(first, last + 1), ""))
            if len(node.body) == 1 and not isinstance(node, ast.Module):
                replaced[first] = f"{' ' * docstring.col_offset}pass\n"
    kept: list[str] = []
    moved: list[int] = []
    for number, line in enumerate(lines):
        moved.append(len(kept))
        if text := replaced.get(number, line):
            kept.append(text)
    return kept, [*moved, len(kept)]


def _first_line(node: _Function) -> int:
    """Return the line of the first decorator, or of `def`, counted from 1."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _first_sentence(docstring: str) -> str:
    paragraph = docstring.strip().partition("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0]


def _does_something(node: _Function) -> bool:
    """Whether a documented function has code that can be recognised."""
    body = node.body[1:]
    return bool(body) and not isinstance(body[0], ast.Pass | ast.Raise)


def _describes_without_naming(description: str, name: str) -> bool:
    """Whether a description is plain English without parts of the name."""
    if not _PLAIN_WORDS.fullmatch(description):
        return False
    words = re.findall(r"[a-z]+", description.lower())
    return len(words) >= _SHORTEST_DESCRIPTION_WORDS and not any(
        word.startswith(part[:4]) or (len(word) >= 4 and word in name.lower())
        for word in words
        for part in _parts(name)
    )


def _parts(name: str) -> Iterator[str]:
    """Yield the parts of `snake_case` and `camelCase` that have three letters or more."""
    for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        if len(part) >= 3:
            yield part.lower()
