"""The options of Hydra's groups and the keys of their files, read without composing them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Formats of log lines.
_LEFT_OUT = ("hydra/job_logging", "hydra/hydra_logging")
ALIAS = {"attention": "sparse_attention"}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a configuration file, with the comment above it."""

    name: str
    """Dotted, from the top of the file."""
    comment: str
    value: str
    """As written in the file; empty for a mapping."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A yaml of a group, such as `masker=quest`; the group of config.yaml is empty."""

    group: str
    name: str
    path: Path

    @property
    def title(self) -> str:
        """How it is chosen on the command line."""
        return f"{'attention' if self.group == 'sparse_attention' else self.group}={self.name}"

    @cached_property
    def text(self) -> str:
        """The file."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    @cached_property
    def content(self) -> dict[str, Any]:
        """The file as a dictionary; empty if it is not one."""
        try:
            content = yaml.load(self.text, Loader=_LOADER)
        except yaml.YAMLError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def summary(self) -> str:
        """The first sentence of the comment at the top."""
        above = re.match(r"(?:#.*\n)+", self.text)
        words = " ".join(line.lstrip("# ") for line in above[0].splitlines()) if above else ""
        return re.split(r"(?<=\.)\s", words, maxsplit=1)[0].rstrip(".")

    @property
    def target(self) -> str:
        """The class that it configures; empty without one."""
        return str(self.content.get("_target_", ""))

    def parts(self) -> Iterator[tuple[str, str, str]]:
        """Yield group, name and place of every option that its defaults name."""
        defaults = self.content.get("defaults")
        for entry in defaults if isinstance(defaults, list) else ():
            if isinstance(entry, str) and entry != "_self_":
                yield self.group, entry, ""
            for group, names in entry.items() if isinstance(entry, dict) else ():
                group, _, place = str(group).removeprefix("override ").lstrip("/").partition("@")
                for name in names if isinstance(names, list) else [names]:
                    yield group, str(name), place

    def read_keys(self) -> Iterator[Key]:
        """Yield every key of the file."""
        try:
            node = yaml.compose(self.text, Loader=_LOADER)
        except yaml.YAMLError:
            return
        if isinstance(node, yaml.MappingNode):
            yield from _keys(node, "", self.text.splitlines())


def find_options(folders: Sequence[Path]) -> list[Option]:
    """Return the options of some folders of configurations; of one name, the first counts."""
    found: dict[tuple[str, str], Option] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group != "." and group not in _LEFT_OUT:
                option = Option(group=group, name=path.stem, path=path)
                found.setdefault((group, path.stem), option)
    return list(found.values())


def _keys(node: yaml.MappingNode, above: str, lines: Sequence[str]) -> Iterator[Key]:
    for key, value in node.value:
        name = f"{above}.{key.value}".lstrip(".")
        is_mapping = isinstance(value, yaml.MappingNode) and value.value
        row = key.start_mark.line
        yield Key(
            name=name,
            comment=_comment_above(row, key.start_mark.column, lines),
            value="" if is_mapping else lines[row].partition(":")[2].strip(),
        )
        if is_mapping:
            yield from _keys(value, name, lines)


def _comment_above(row: int, column: int, lines: Sequence[str]) -> str:
    found: list[str] = []
    while row and lines[row - 1].startswith(f"{' ' * column}#"):
        row -= 1
        found.insert(0, lines[row].strip())
    return "\n".join(found)
