"""Reference pages of the Hydra groups: every option, every key, its value and what it means.

A key is explained by the comment above it in its yaml, else by the docstring below the field of the
class that `_target_` names. griffe reads the classes from their source; nothing is imported.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


class Group(NamedTuple):
    """A folder of conf/ and the beginning of its page."""

    folder: str
    title: str
    intro: str


GROUPS = {
    "model": Group(
        "model",
        "Models",
        "`model=OPTION` chooses the language model, `model.KEY=VALUE` changes one of its values.",
    ),
    "sparse_attention": Group(
        "sparse_attention",
        "Attentions",
        "`attention=OPTION` chooses an attention; it is short for `sparse_attention=OPTION`. Its "
        "values are set with `sparse_attention.KEY=VALUE`. An attention is a fold of maskers: each "
        "one adds keys to those that the maskers before it selected. An evictor decides which keys "
        "of the context they find in the cache, and a rewriter how the cache stores them. A "
        "pattern decides which keys the context's own queries read.",
    ),
    "masker": Group(
        "masker",
        "Maskers",
        "`+masker@sparse_attention.maskers.NAME=OPTION` adds a masker to an attention under a name "
        "of your choice; `sparse_attention.maskers.NAME.KEY=VALUE` changes one of its values.",
    ),
    "pattern": Group(
        "pattern",
        "Patterns",
        "`+pattern@sparse_attention.prefill.NAME=OPTION` adds the pattern by which an attention "
        "reads the context, under a name of your choice; `sparse_attention.prefill.NAME.KEY=VALUE` "
        "changes one of its values. [The methods side by side](../methods.md#sparse-prefill) has "
        "rules, sources and deviations.",
    ),
    "evictor": Group(
        "evictor",
        "Evictors",
        "`+evictor@sparse_attention.evict.NAME=OPTION` adds the evictor of an attention under a "
        "name of your choice; `sparse_attention.evict.NAME.KEY=VALUE` changes one of its values. "
        "[The methods side by side](../methods.md#eviction) has scores, sources and deviations.",
    ),
    "rewriter": Group(
        "rewriter",
        "Rewriters",
        "`+rewriter@sparse_attention.rewrite.NAME=OPTION` adds the rewriter of an attention under "
        "a name of your choice; `sparse_attention.rewrite.NAME.KEY=VALUE` changes one of its "
        "values. [The methods side by side](../methods.md#rewriting) has rules, sources and "
        "deviations.",
    ),
    "benchmark": Group(
        "benchmark",
        "Benchmarks",
        "`benchmark=OPTION` chooses the benchmark, `benchmark.KEY=VALUE` changes one of its "
        "values. Tasks, scores and data are listed in [Benchmarks](../benchmarks.md).",
    ),
    "protocol": Group(
        "protocol",
        "Protocols",
        "`protocol=OPTION` chooses which passes are dense and which are sparse.",
    ),
    "metric_logging": Group(
        "metric_logging",
        "Metric logging",
        "`metric_logging=OPTION` chooses which micro metrics are measured, and how many of them.",
    ),
    "tracker": Group(
        "tracker",
        "Trackers",
        "`tracker=OPTION` also sends live numbers and results to an experiment tracker; `sah track "
        "FOLDER tracker=OPTION` sends results afterwards. Values are set with `tracker.KEY=VALUE`.",
    ),
    "launcher": Group(
        "hydra/launcher",
        "Launchers",
        "`hydra/launcher=OPTION` chooses where the jobs of a sweep run, `hydra.launcher.KEY=VALUE` "
        "changes one of its values; both need `-m`. Hydra's own `basic` runs every cell in this "
        "process, for debugging.",
    ),
}


class Key(NamedTuple):
    """One key of a yaml file."""

    path: tuple[str, ...]
    value: Any
    meaning: str
    """Empty if neither the yaml nor the class explains it."""


NAME = "Names the directory of results and the row in reports."


def group_page(name: str) -> str:
    """Write the page of a group, in Markdown."""
    group = GROUPS[name]
    parts = [f"# {group.title}", group.intro]
    for path in options_of(name):
        parts += _option(path)
    return "\n\n".join(parts) + "\n"


def options_of(name: str) -> list[Path]:
    """Find the yaml files of a group."""
    return sorted((CONF / GROUPS[name].folder).glob("*.yaml"))


def experiment_page() -> str:
    """Write the page of conf/config.yaml: what every experiment has besides its groups."""
    node, _ = _read(CONF / "config.yaml")
    groups = [
        f"`{group}={option}`"
        for entry in node["defaults"]
        if isinstance(entry, dict)
        for group, option in entry.items()
        if not group.startswith("override ") and option is not None
    ]
    return "\n\n".join(
        [
            "# The experiment",
            "The keys of `conf/config.yaml`. An experiment is composed of one option of each "
            f"group, by default {', '.join(groups)}, and of these values:",
            _table(experiment_keys()),
            "Hydra's own options (`hydra.…`, `--config-dir`, `--cfg job`, `-m`) are described in "
            "its documentation, <https://hydra.cc>.",
        ]
    )


def experiment_keys() -> list[Key]:
    """Read the keys of conf/config.yaml that do not belong to a group or to Hydra."""
    node, comments = _read(CONF / "config.yaml")
    del node["defaults"], node["hydra"]
    return [Key(path, value, comments.get(path, "")) for path, value in _leaves(node)]


def methods_page(group: str) -> str:
    """Write the page of the modules of a group's options, which mkdocstrings fills."""
    targets = sorted(
        yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"]
        for path in (CONF / group).glob("*.yaml")
    )
    modules = dict.fromkeys(target.rpartition(".")[0] for target in targets)
    return "\n\n".join(
        [
            f"# sah.{group}s",
            "The methods, one file each. Docstrings name paper, equation and every deviation.",
            *(f"::: {module}" for module in modules),
        ]
    )


def keys_of(path: Path) -> list[Key]:
    """Read the keys of an option, including those of the options that it composes."""
    node, comments = _read(path)
    _, composed = _defaults(node)
    target = node.pop("_target_", "")
    keys = [Key(key, value, _meaning(path, comments, key, target)) for key, value in _leaves(node)]
    for part in composed:
        keys += [
            key._replace(path=(*part.place, *key.path))
            for key in keys_of(CONF / part.group / f"{part.option}.yaml")
        ]
    return keys


def _meaning(
    path: Path, comments: Mapping[tuple[str, ...], str], key: tuple[str, ...], target: str
) -> str:
    """Explain a key of a yaml file; empty if neither the yaml nor the class does."""
    # A comment such as "for hydra/launcher=slurm" holds for all keys that follow it.
    other = _launcher_of_unused(path, comments, key)
    if other is not None:
        _, explained = _read(path.with_stem(other))
        return f"Only for `hydra/launcher={other}`. {explained.get(key, '')}"
    return comments.get(key) or _field(target, key[0]) or (NAME if key == ("name",) else "")


def _launcher_of_unused(
    path: Path, comments: Mapping[tuple[str, ...], str], key: tuple[str, ...]
) -> str | None:
    """Name the launcher that uses a key, if it is not the one of this file."""
    node, _ = _read(path)
    names = list(node)
    for name in reversed(names[: names.index(key[0]) + 1]):
        for other in re.findall(r"hydra/launcher=(\w+)", comments.get((name,), "")):
            if path.with_stem(other).exists():
                return str(other)
    return None


def _option(path: Path) -> Iterator[str]:
    """Write heading, description and table of one option."""
    node, comments = _read(path)
    yield f"## {path.stem}"
    others, composed = _defaults(node)
    if others:
        yield f"Another name of [`{others[0]}`](#{others[0]})."
        return
    target = node["_target_"]
    # A preset is described by what it composes: they all are of one class.
    is_preset = bool(composed) and path.parent.name == "sparse_attention"
    description = comments.get(()) or ("" if is_preset else _docstring(target))
    yield description if is_preset else f"{description} (`{target}`)".lstrip()
    titles = {
        "pattern": "Pattern",
        "evictor": "Evictor",
        "rewriter": "Rewriter",
        "masker": "Maskers, in order",
    }
    for group, title in titles.items():
        options = (part.option for part in composed if part.group == group)
        if links := [f"[`{option}`]({group}.md#{option})" for option in options]:
            yield f"{title}: {', '.join(links)}."
    if keys := keys_of(path):
        yield _table(keys)


class Part(NamedTuple):
    """An option that another one composes, such as `/masker@maskers.sink: sink`."""

    group: str
    place: tuple[str, ...]
    option: str


def _defaults(node: dict[str, Any]) -> tuple[list[str], list[Part]]:
    """Split `defaults` into the options that a file stands for and those that it composes.

    Raises:
        ValueError: for an entry of `defaults` that is neither.
    """
    options: list[str] = []
    composed: list[Part] = []
    for entry in node.pop("defaults", []):
        if entry == "_self_":
            continue
        if isinstance(entry, str):
            options.append(entry)
            continue
        for place, option in entry.items():
            known = re.fullmatch(r"/(masker|pattern|evictor|rewriter)@([\w.]+)", place)
            if known is None:
                raise ValueError(f"{Path(__file__).name} does not know the default {place!r}")
            composed.append(Part(known[1], tuple(known[2].split(".")), option))
    return options, composed


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Read a yaml file, and its comments by the key below them; () is the file itself."""
    text = path.read_text(encoding="utf-8")
    comments: dict[tuple[str, ...], str] = {}
    waiting: list[str] = []
    parents: list[tuple[int, str]] = []
    is_first = True
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            waiting.append(bare.removeprefix("#").strip())
            continue
        key = re.match(r"( *)([\w-]+):", line)
        if key is not None:
            indent, name = len(key[1]), key[2]
            parents = [parent for parent in parents if parent[0] < indent]
            parents.append((indent, name))
            place = tuple(parent for _, parent in parents)
            # What stands above the first line describes the file.
            about = () if is_first and name in ("_target_", "defaults") else place
            if waiting:
                comments[about] = " ".join(waiting)
            is_first = False
        waiting = []
    return yaml.safe_load(text), comments


def _leaves(
    node: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key that holds a value, with its path; an empty mapping is a value."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _table(keys: list[Key]) -> str:
    """Write a table of keys."""
    rows = [
        f"| `{'.'.join(key.path)}` | `{_shown(key.value)}` | {_cell(key.meaning)} |" for key in keys
    ]
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows])


def _shown(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_shown(item) for item in value)}]"
    return str(value) or "''"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


@cache
def _package() -> griffe.Module:
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    package = loader.load("sah")
    loader.resolve_aliases()
    assert isinstance(package, griffe.Module)
    return package


def _class(target: str) -> griffe.Class | None:
    """Find the class that a `_target_` names; None for one of another package."""
    first, _, rest = target.partition(".")
    if first != "sah":
        return None
    found = _package()[rest]
    if isinstance(found, griffe.Alias):
        found = found.final_target
    assert isinstance(found, griffe.Class), target
    return found


def _docstring(target: str) -> str:
    """Return the first paragraph of a class's docstring."""
    found = _class(target)
    if found is None or found.docstring is None:
        return ""
    return " ".join(found.docstring.value.split("\n\n")[0].split())


def _field(target: str, name: str) -> str:
    """Return the docstring below a field of a class or of one of its bases."""
    found = _class(target)
    for kind in [] if found is None else [found, *found.mro()]:
        member = kind.members.get(name)
        if member is not None and member.docstring is not None:
            return member.docstring.value
    return ""
