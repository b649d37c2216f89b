"""Writing files so that a crash at any moment leaves the old or the new one, never half."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from sah.errors import DamagedResults


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file next to its place, bring it to the disk, and rename it there.

    Args:
        path: the file; may be read while `content` is made.
        content: as a whole, or in parts.

    Raises:
        OSError: naming the file, which is as it was before.
    """
    # Process ids are not enough: those of two containers are often the same.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(unfinished, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def append_whole(path: Path, lines: bytes) -> None:
    """Append lines, all of them or none.

    A part of a line that a full disk took in would stand in the middle of the file once
    there is room again.

    Raises:
        OSError: naming the file, which is as it was before.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    before = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(lines):
            # Less than asked for is no error yet: the next attempt is told the reason.
            written += os.write(descriptor, lines[written:])
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # An interruption ends here too.
        if written < len(lines):
            os.ftruncate(descriptor, before)
        os.close(descriptor)


def remove_unfinished(path: Path) -> None:
    """Remove what `write_atomically` left of a file when its process was killed."""
    for unfinished in path.parent.glob(f".{path.name}.*"):
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity become null."""
    write_atomically(path, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def json_lines(values: list[Any]) -> bytes:
    """One compact JSON document a line."""
    return b"".join(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE) for value in values)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DamagedResults: if the file is anything else.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DamagedResults(_damaged(path, str(error))) from error
    if not isinstance(value, dict):
        raise DamagedResults(_damaged(path, f"it holds a {type(value).__name__}, not an object"))
    return value


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int, bool]:
    """Read a file that was appended to, line by line.

    Returns:
        The records, the bytes they take from the beginning of the file, and whether a
        torn last line, which an interrupted write leaves, comes after them.

    Raises:
        DamagedResults: if any line but the last is no JSON object.
    """
    records, good = [], 0
    for record, line in whole_json_lines(path):
        records.append(record)
        good += len(line)
    return records, good, path.exists() and good < path.stat().st_size


def whole_json_lines(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each record of such a file with its line, one at a time; a torn last line is left out.

    Raises:
        DamagedResults: if any line but the last is no JSON object.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            torn = not line.endswith(b"\n")
            try:
                record = None if torn else orjson.loads(line)
            except json.JSONDecodeError:
                record = None
            if isinstance(record, dict):
                yield record, line
            elif file.read(1):
                raise DamagedResults(_damaged(path, f"line {number} is no JSON object"))


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} is damaged: {what}. Nothing was changed; repair the file, move its directory "
        "away, or start afresh with resume=false (the directory is kept aside)"
    )
