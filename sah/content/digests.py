"""Digests of local files, remembered by path, size and time of change."""

import functools
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sah.paths import cache_home

DIGEST_BYTES = 8
_CHUNK = 2**20

# Reading a smaller file takes about as long as looking its digest up.
_REMEMBERED_ON_DISK = 2**23

# A file that changed this recently may change again without a new time of change.
_SETTLED_NS = 2 * 10**9

_remembered: dict[tuple[str, str], tuple[int, int, str]] = {}


def digest(path: Path) -> str | None:
    """Return the digest of a file's bytes, or of all files below a folder, in order of their names.

    Hidden files do not count, nor do the names of files. None if there is no such path.
    """
    if path.is_dir():
        names = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        return digest_of_files(path / name for name in shown)
    return digest_of_files([path]) if path.is_file() else None


def digest_of_files(files: Iterable[Path]) -> str:
    """Return the digest of the bytes of several files, in this order."""
    parts = [remembered(file, "whole", _whole) for file in files]
    return parts[0] if len(parts) == 1 else combined(parts)


def combined(parts: Iterable[str]) -> str:
    """Return the digest of several texts, in order."""
    return hashlib.blake2b(json.dumps([*parts]).encode(), digest_size=DIGEST_BYTES).hexdigest()


def last_change(path: Path) -> datetime | None:
    """Return when a file, or the last one in a folder, was changed; None if there is none."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    times = [file.stat().st_mtime for file in files]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of installed packages by name; those that are missing are left out."""
    found = {name: _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def remembered(file: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """Return what `compute` makes of a file, computed again only if the file has changed.

    Kept in this process and, for large files, in the cache directory.
    """
    file = file.resolve()
    status = file.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    key = (str(file), kind)
    known = _remembered.get(key)
    if known is not None and known[:2] == stamp:
        return known[2]
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
        return compute(file)
    place = cache_home() / "digests" / combined([*key, *map(str, stamp)])
    found = _read(place) if status.st_size >= _REMEMBERED_ON_DISK else None
    if found is None:
        found = compute(file)
        if status.st_size >= _REMEMBERED_ON_DISK:
            _write(place, found)
    _remembered[key] = (*stamp, found)
    return found


def _whole(file: Path) -> str:
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with open(file, "rb") as content:
        while chunk := content.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _read(place: Path) -> str | None:
    """Return a remembered digest; None if there is none, or if it is not whole."""
    try:
        text = place.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) == 2 * DIGEST_BYTES else None


def _write(place: Path, found: str) -> None:
    # Without a cache, every process computes digests again.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        # A torn file is told by its length.
        place.write_text(found, encoding="ascii")
