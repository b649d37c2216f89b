"""What the field `content` of a configured part holds: digests, commits and versions by field.

A value of a field that `content` names too is replaced by it in the identity of an experiment:
`path: my.jsonl` with `content: {path: 3f2a…}` is the file's bytes, whatever its name.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sah.content.checkpoints import checkpoint_digest
from sah.content.commits import find_commit
from sah.content.digests import digest, package_versions

CONTENT = "content"
"""Name of the field."""

_PACKAGE = "pypi:"


def content_of_fields(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the digests of the files and folders that fields name, and versions of packages.

    Args:
        values: the fields of a part by name.
        names: names of fields, or `pypi:NAME` for a package that carries data. Of a field that
            names a package instead of a file, the version counts; otherwise it is left out.
    """
    names = tuple(names)
    given = {name: values[name] for name in names if isinstance(values.get(name), str)}
    read = {name: _content_of(value) for name, value in given.items() if value}
    found: dict[str, Any] = {name: content for name, content in read.items() if content}
    packages = [name.removeprefix(_PACKAGE) for name in names if name.startswith(_PACKAGE)]
    versions = package_versions(packages)
    return found | ({"packages": versions} if versions else {})


def content_of_checkpoint(name_or_path: str, revision: str | None) -> dict[str, Any]:
    """Return the digest of a model folder, or the commit of a model on the Hub."""
    found = checkpoint_digest(Path(name_or_path))
    if found is not None:
        return {"name_or_path": found}
    commit = find_commit(name_or_path, revision or "main", "model")
    return {} if commit is None else {"revision": commit}


def _content_of(value: str) -> str | None:
    found = digest(Path(value).expanduser())
    if found is not None:
        return found
    version = package_versions([value] if "/" not in value else []).get(value)
    return None if version is None else f"{value} {version}"


def by_content(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part without its field `content`, whose values replace the others of their names."""
    content = part.get(CONTENT)
    own = {name: value for name, value in part.items() if name != CONTENT}
    if not isinstance(content, Mapping):
        return own if content is None else dict(part)
    return own | {name: value for name, value in content.items() if value is not None}
