"""The texts of `sah help`: all groups, a group, an option, a key."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from sah.cli.topics.classes import papers, read_docs
from sah.cli.topics.options import ALIAS, Option
from sah.paths import STAGES, config_folder

_WIDTH = 80
_ATTENTION = "sah.attention.SparseAttention"
_ITEM = re.compile(r"\s*([-*]|\d\.) ")
_NOT_KEYS = ("_target_", "defaults", "content", "hydra")


def overview(options: Sequence[Option], config: Option) -> str:
    """Return the page of all groups and of the keys outside them."""
    groups = list(dict.fromkeys(one.group for one in options))
    defaults = {group: name for group, name, _ in config.parts() if group in groups}
    lines = ["Choose an option with GROUP=OPTION; change a value with GROUP.KEY=VALUE.", ""]
    for group, name in defaults.items():
        lines += _listed(f"{_shown(group)} (default: {name})", options, group)
    lines += ["Parts of an attention: +GROUP@sparse_attention.STAGE.NAME=OPTION", ""]
    for group, stage in STAGES.items():
        lines += _listed(f"{group} (STAGE: {stage})", options, group)
    for group in groups:
        if group not in defaults and group not in STAGES:
            lines += _listed(group, options, group)
    above = {*defaults, *ALIAS, "hydra", "defaults"}
    keys = [key.name for key in config.read_keys() if key.value and _top(key.name) not in above]
    lines += ["Keys of every experiment:", *_wrapped(", ".join(keys), "", indent="  "), ""]
    lines += ["next: sah help quest, sah help benchmark, sah help resume"]
    return "\n".join(lines)


def group_page(group: str, options: Sequence[Option]) -> str:
    """Return the options of a group, a line each."""
    own = [one for one in options if one.group == group]
    width = max(len(one.name) for one in own) + 2
    if group in STAGES:
        use = f"+{group}@sparse_attention.{STAGES[group]}.NAME={own[0].name}"
    else:
        use = f"{_shown(group)}={own[0].name}"
    lines = [f"{_shown(group)}: {len(own)} options", "", f"use: sah run {use}", ""]
    for one in own:
        summary = one.summary or ", ".join(f"alias of {name}" for _, name, _ in one.parts())
        lines.append(f"  {one.name:<{width}}{_shortened(summary, _WIDTH - width - 2)}")
    return "\n".join([*lines, "", f"next: sah help {_shown(group)}={own[0].name}"])


def option_page(option: Option, options: Sequence[Option], others: Sequence[Option]) -> str:
    """Return the page of an option: its yaml, those of its parts, their classes and papers.

    Args:
        option: to describe.
        options: all of them.
        others: options of the same name in other groups.
    """
    parts = list(_parts(option, {(one.group, one.name): one for one in options}))
    lines: list[str] = []
    described: set[str] = set()
    cited, names = "", []
    for one in (option, *parts):
        lines += [f"{one.title}    {_relative(one.path)}", ""]
        lines += [*_commented(one.text), ""]
        names.append(one.name)
        cited += one.text
        # Of a preset, its parts say what it does.
        is_preset = one.target == _ATTENTION and parts
        if one.target and one.target not in described and not is_preset:
            described.add(one.target)
            docs = read_docs(one.target)
            lines += [f"  {one.target}", ""]
            lines += [*_docstring(docs.of_class), ""] if docs else ["  (source not found)", ""]
            cited += docs.of_class + docs.of_module if docs else ""
    found = papers(names, cited)
    if found:
        lines += ["papers:" if len(found) > 1 else "paper:"]
        lines += [line for paper in found for line in _wrapped(f"  {paper}", "    ")] + [""]
    use = f"use: sah run {_usage(option, parts)}"
    lines += [use if len(use) <= _WIDTH else " \\\n       ".join(use.rsplit(" ", 1))]
    rest = [one for one in others if one not in parts]
    if rest:
        topics = ", ".join(f"sah help {one.title}" for one in rest)
        lines += _wrapped(f"same name: {topics}", "  ")
    return "\n".join(lines)


def ambiguous_page(name: str, found: Sequence[Option]) -> str:
    """Return the groups that have an option of a name."""
    width = max(len(one.title) for one in found) + 13
    lines = [f"{name} is an option of {len(found)} groups:", ""]
    for one in found:
        lines.append(
            f"  sah help {one.title}".ljust(width) + _shortened(one.summary, _WIDTH - width)
        )
    return "\n".join(lines)


def key_page(name: str, options: Sequence[Option]) -> str:
    """Return every key that a dotted name stands for, with its comment; empty if there is none.

    `samples`, `ruler.samples`, `benchmark.samples` and `sparse_attention.maskers.quest.page_size`
    are such names. Options that share a default and a comment are listed together.
    """
    places: dict[tuple[str, str, str], list[str]] = {}
    for option in options:
        found: list[str] = []
        for key in option.read_keys():
            if key.name.startswith(_NOT_KEYS):
                continue
            inside = any(key.name.startswith(f"{above}.") for above in found)
            if inside or _stands_for(name.split("."), option, key.name.split(".")):
                found.append(key.name)
                if key.value:
                    named = option.title if option.group else "config.yaml"
                    places.setdefault((key.name, key.value, key.comment), []).append(named)
    lines: list[str] = []
    for (key_name, value, comment), titles in places.items():
        lines += [*_wrapped(", ".join(titles), "  "), ""]
        lines += [*_commented(f"{comment}\n{key_name}: {value}".strip()), ""]
    return "\n".join(lines).rstrip()


def _stands_for(name: Sequence[str], option: Option, key: Sequence[str]) -> bool:
    """Whether a name ends in a key, with what comes before it in the place of the option."""
    above = [*option.group.split("/"), option.name, *key[:-1]]
    if option.group in STAGES:
        above = ["sparse_attention", STAGES[option.group], *above]
    waiting = iter(above)
    return name[-1] == key[-1] and all(word in waiting for word in name[:-1])


def _listed(title: str, options: Sequence[Option], group: str) -> list[str]:
    names = ", ".join(one.name for one in options if one.group == group)
    return [title, *textwrap.wrap(names, _WIDTH, initial_indent="  ", subsequent_indent="  "), ""]


def _shown(group: str) -> str:
    return next((alias for alias, name in ALIAS.items() if name == group), group)


def _shortened(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")


def _top(key: str) -> str:
    return key.partition(".")[0]


def _parts(option: Option, known: dict[tuple[str, str], Option]) -> Iterator[Option]:
    """Yield the options that an option consists of, those of its parts included, each once."""
    seen = {(option.group, option.name)}
    waiting = [option]
    while waiting:
        for group, name, _ in waiting.pop(0).parts():
            part = known.get((group, name))
            if part is not None and (group, name) not in seen:
                seen.add((group, name))
                waiting.append(part)
                yield part


def _usage(option: Option, parts: Sequence[Option]) -> str:
    if option.group in STAGES:
        place = f"sparse_attention.{STAGES[option.group]}.{option.name}"
        return f"+{option.group}@{place}={option.name}"
    prefix, changed = option.group.replace("/", "."), option
    # The part that it is named after, else the last one.
    for part in sorted(parts, key=lambda part: part.name == option.name):
        if part.group in STAGES:
            prefix, changed = f"{option.group}.{STAGES[part.group]}.{part.name}", part
    keys = [key.name for key in changed.read_keys() if key.value not in ("", "null")]
    values = [name for name in keys if not name.startswith(_NOT_KEYS) and name != "name"]
    return option.title + (f" {prefix}.{values[0]}=VALUE" if values else "")


def _relative(path: Path) -> Path:
    for folder in (Path.cwd(), config_folder().parent):
        if path.is_relative_to(folder):
            return path.relative_to(folder)
    return path


def _commented(text: str) -> list[str]:
    """Indent a yaml, with its comments wrapped again."""
    lines: list[str] = []
    comment: list[str] = []
    for line in [*text.rstrip().splitlines(), None]:
        if line is not None and line.lstrip().startswith("#"):
            comment.append(line)
            continue
        if comment:
            lead = comment[0][: comment[0].index("#")] + "# "
            words = [one.strip().lstrip("#").strip() for one in comment]
            lines += _wrapped(lead + " ".join(words), lead, indent="  ")
            comment = []
        if line is not None:
            lines.append(f"  {line}".rstrip())
    return lines


def _docstring(text: str) -> list[str]:
    """Indent a docstring, with its paragraphs wrapped again; lists and equations stay."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        rows = paragraph.splitlines()
        if any(row.startswith(" ") for row in rows) and not _ITEM.match(rows[0]):
            lines += [f"  {row}" for row in rows]
        else:
            starts = [n for n, row in enumerate(rows) if n == 0 or _ITEM.match(row)]
            for start, end in zip(starts, [*starts[1:], None], strict=True):
                below = "  " if _ITEM.match(rows[start]) else ""
                words = " ".join(row.strip() for row in rows[start:end])
                lines += _wrapped(words, below, indent="  ")
        lines.append("")
    return lines[:-1]


def _wrapped(text: str, below: str, *, indent: str = "") -> list[str]:
    """Wrap a text to 80 columns; `below` comes before its lines after the first."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + below,
        break_on_hyphens=False,
        break_long_words=False,
    )
