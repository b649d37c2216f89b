"""The content that experiments read: fixed when they are planned, noted where they are computed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from sah.content import CONTENT, checkpoint_digest, digest, last_change
from sah.results.identity import resolved, typed_fingerprint

STARTS = "starts.jsonl"
"""One line for each process that answered examples."""


@dataclass(frozen=True, kw_only=True)
class Identified:
    """A part of a configuration whose content was looked up."""

    part: str
    """JSON of its fields; `content` is the interpolation that looks it up."""
    content: str
    """JSON of what was found."""

    def is_current(self) -> bool:
        """Whether the content is still the same."""
        try:
            part = OmegaConf.create(json.loads(self.part))
            return _json(resolved(part[CONTENT])) == self.content
        except OmegaConfBaseException:
            return False


def fix_contents(config: DictConfig, known: dict[str, Any] | None = None) -> list[Identified]:
    """Replace each interpolation that looks content up by what it finds now.

    A job that starts later then refuses other content, instead of working in another directory
    than the one that was planned. What cannot be looked up yet stays as it is.

    Args:
        config: a composed configuration, changed in place.
        known: contents that were found a moment ago, for other cells of the same sweep; grows.
    """
    known = {} if known is None else known
    found = []
    for part in _parts_with_content(config):
        fields: dict[str, Any] = OmegaConf.to_container(part, resolve=False)  # type: ignore[assignment]
        expression = fields.pop(CONTENT)
        if not isinstance(expression, str):
            continue
        try:
            if "${" in str(fields):
                fields = {name: resolved(part[name]) for name in fields}
            asked = _json({**fields, CONTENT: expression})
            if asked not in known:
                known[asked] = resolved(part[CONTENT])
        except OmegaConfBaseException:
            continue
        found.append(Identified(part=asked, content=_json(known[asked])))
        with flag_override(part, ["struct", "readonly"], False):
            part[CONTENT] = known[asked]
    return found


def describe_contents(experiment: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Describe the content of a resolved experiment by key, such as `benchmark.path`.

    Returns:
        `content` of each, a digest, commit or version; of a local file or folder also its
        absolute `path` and the time of its last `change`.
    """
    described: dict[str, dict[str, str]] = {}
    for path, part in _resolved_parts(experiment, ""):
        for name, value in part[CONTENT].items():
            if isinstance(value, Mapping):
                for key, each in value.items():
                    described[f"{path}.{name}.{key}"] = {"content": str(each)}
            elif value is not None:
                described[f"{path}.{name}"] = {"content": str(value), **_local(part.get(name))}
    return described


def described_start(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line of starts.jsonl says about the content of a resolved experiment."""
    return {"typed": typed_fingerprint(experiment), "content": describe_contents(experiment)}


def other_content(directory: Path, experiment: Mapping[str, Any]) -> list[str]:
    """Say which neighbours of a directory are of the same files or revisions before they changed.

    Args:
        directory: of the experiment.
        experiment: the resolved experiment.

    Returns:
        A sentence for each content that differs, and for the answers of an earlier version.
    """
    typed, described = typed_fingerprint(experiment), describe_contents(experiment)
    lines = []
    # Earlier versions named the directory after what was typed.
    if (directory.parent / typed).is_dir():
        lines.append(
            f"{directory.parent / typed} has answers of an earlier version: `sah report` shows "
            "them, but they are not resumed, since an experiment is now named after the content "
            "of its files, and metrics are means over queries"
        )
    for neighbour in sorted(directory.parent.iterdir()) if described else ():
        start = {} if neighbour == directory else first_start(neighbour)
        if start.get("typed") != typed:
            continue
        for key, now in described.items():
            before = start["content"].get(key, {})
            is_same = before.get("content") == now["content"]
            if not is_same and before.get("path") == now.get("path"):
                lines.append(
                    f"{key} has changed: {neighbour} has answers to its content {_of(before)}; "
                    f"this is another experiment, on its content {_of(now)}"
                )
    return lines


def unidentified_paths(experiment: Mapping[str, Any]) -> list[str]:
    """Name the existing files that an experiment has by their path only, in sentences."""
    return [
        f"{key}={value} counts by its path: if its content changes, this result will be taken for "
        f"the new one; add `{CONTENT}: ${{sah.content:{key.rpartition('.')[2]}}}` beside it in its "
        "yaml, and the field to its class"
        for key, value in _plain_texts(experiment, "")
        if "/" in value and _exists(value)
    ]


def vanished(described: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say which local content is no longer on this disk as it was read."""
    lines = []
    for key, about in described.items():
        if "path" not in about:
            continue
        path = Path(about["path"])
        if not path.exists():
            lines.append(f"{key} is gone")
        elif _changed(path) != about["changed"]:
            now = checkpoint_digest(path) if key.startswith("model.") else digest(path)
            if now != about["content"]:
                lines.append(f"{key} was written again on {_day(_changed(path))}")
    return lines


def _parts_with_content(config: DictConfig) -> Iterator[DictConfig]:
    for key, node in config._content.items():  # type: ignore[union-attr]
        if key != "hydra" and isinstance(node, DictConfig) and isinstance(node._content, dict):
            if CONTENT in node._content:
                yield node
            yield from _parts_with_content(node)


def _resolved_parts(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if isinstance(value.get(CONTENT), Mapping):
            yield path, value
        for key, child in value.items():
            yield from _resolved_parts(child, f"{path}.{key}".lstrip("."))


def first_start(directory: Path) -> dict[str, Any]:
    """Return the first line of starts.jsonl; empty if there is none that can be read."""
    try:
        with open(directory / STARTS, "rb") as file:
            start = orjson.loads(file.readline())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return start if isinstance(start, dict) and isinstance(start.get("content"), dict) else {}


def _plain_texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Return the texts of a resolved experiment by key, but for those that have a content."""
    if isinstance(value, Mapping):
        content = value.get(CONTENT)
        known = {CONTENT, *(content if isinstance(content, Mapping) else ())}
        for key, child in value.items():
            if key not in known:
                yield from _plain_texts(child, f"{path}.{key}".lstrip("."))
    elif isinstance(value, str):
        yield path, value


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        # A text that is too long for a path, or names the home of nobody.
        return False


def _local(typed: Any) -> dict[str, str]:
    path = Path(str(typed)).expanduser().absolute()
    return {"path": str(path), "changed": _changed(path)} if typed and path.exists() else {}


def _changed(path: Path) -> str:
    change = last_change(path)
    return "" if change is None else change.isoformat()


def _of(about: Mapping[str, str]) -> str:
    """Name a content, with the date of a local file."""
    when = f" of {_day(about['changed'])}" if about.get("changed") else ""
    return f"{about.get('content')}{when}"


def _day(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
