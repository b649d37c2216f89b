"""Docstrings of classes and the papers behind them, read from source without importing it.

Importing a method takes seconds, since it needs torch, and would run the code of a user's own.
"""

import ast
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from sah.paths import references_file

_FIELD = re.compile(r"(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True, kw_only=True)
class Docs:
    """The docstrings of a class and of its module."""

    of_class: str
    of_module: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An entry of docs/references.bib."""

    key: str
    title: str
    authors: str
    """`Tang et al.`"""
    year: str
    arxiv: str

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. https://arxiv.org/abs/{self.arxiv}"


def read_docs(target: str) -> Docs | None:
    """Return the docstrings of a class by its dotted path; None if its source is not found."""
    module, _, name = target.rpartition(".")
    # A package imports its classes from modules, which may do so too.
    for _ in range(5):
        path = _file_of(module)
        if path is None:
            return None
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                texts = ast.get_docstring(node), ast.get_docstring(tree)
                return Docs(of_class=texts[0] or "", of_module=texts[1] or "")
        sources = [
            (node.module, alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
            for alias in node.names
            if (alias.asname or alias.name) == name
        ]
        if not sources:
            return None
        module, name = sources[0]
    return None


def _file_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return None if spec.origin is None else Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        inner = Path(folder, *rest)
        for path in (inner / "__init__.py", inner.with_name(f"{inner.name}.py")):
            if path.is_file():
                return path
    return None


def read_references() -> list[Reference]:
    """Return the entries of references.bib; empty where the file is not installed."""
    path = references_file()
    if not path.is_file():
        return []
    found = []
    for entry in re.split(r"^@", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        # Braces only protect upper case, or an organisation that is an author.
        fields = {
            name: re.sub(r"[{}$]", "", " ".join(text.split()))
            for name, text in _FIELD.findall(entry)
        }
        names = fields.get("author", "").split(" and ")
        found.append(
            Reference(
                key=entry.partition("{")[2].partition(",")[0],
                title=fields.get("title", ""),
                authors=names[0].partition(",")[0] + (" et al." if len(names) > 1 else ""),
                year=fields.get("year", ""),
                arxiv=fields.get("eprint", ""),
            )
        )
    return found


def papers(names: list[str], text: str) -> list[str]:
    """Return the papers of options with these names, and those that a text cites."""
    references = read_references()
    cited = set(_ARXIV.findall(text))
    known = [one for one in references if one.key in names or one.arxiv in cited]
    others = sorted(cited - {one.arxiv for one in references})
    return [*map(str, known), *(f"https://arxiv.org/abs/{number}" for number in others)]
