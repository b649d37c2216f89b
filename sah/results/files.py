"""Reading and writing files so that a crash never leaves a partial one."""

import errno
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from sah.errors import DamagedResults


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a temporary file beside the target, fsync it, and rename it.

    Args:
        path: the target; it may be read while `content` is generated.
        content: bytes, or chunks of bytes.

    Raises:
        OSError: naming the target, which is left unchanged.
    """
    # Process ids would not do: two containers often use the same ones.
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
    """Append lines, either all of them or none.

    A partial line left by a full disk would end up in the middle of the file once there is
    space again.

    Raises:
        OSError: naming the file, which is left unchanged.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    before = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(lines):
            # A short write is not an error yet; the next one reports the reason.
            written += os.write(descriptor, lines[written:])
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # Reached after an interruption too.
        if written < len(lines):
            os.ftruncate(descriptor, before)
        os.close(descriptor)


def remove_unfinished(path: Path) -> None:
    """Remove the temporary files of a process that was killed in `write_atomically`."""
    for unfinished in path.parent.glob(f".{path.name}.*"):
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity become null."""
    write_atomically(path, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def json_lines(values: list[Any]) -> bytes:
    """Return one compact JSON document per line."""
    return b"".join(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE) for value in values)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: if there is none.
        DamagedResults: if the file does not contain a JSON object.
    """
    try:
        value = orjson.loads(read_file(path))
    except orjson.JSONDecodeError as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, f"it contains a {type(value).__name__}, not an object")
    return value


def read_file(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        FileNotFoundError: if there is none.
        DamagedResults: if something other than a file has its name.
    """
    if not is_present(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path.read_bytes()


def is_present(path: Path) -> bool:
    """Whether a file exists.

    Raises:
        DamagedResults: if something else has its name. Opening a pipe would wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise damaged(path, "it is a link to a missing file") from None
        return False
    if not stat.S_ISREG(mode):
        raise damaged(path, f"it is a {'folder' if stat.S_ISDIR(mode) else 'device'}, not a file")
    return True


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int, bool]:
    """Read a file of JSON lines that was appended to.

    Returns:
        The records, the number of bytes they occupy at the start of the file, and whether an
        interrupted write left a torn last line after them.

    Raises:
        DamagedResults: if any line but the last is not a JSON object.
    """
    records, good = [], 0
    for record, line in whole_json_lines(path):
        records.append(record)
        good += len(line)
    return records, good, is_present(path) and good < path.stat().st_size


def whole_json_lines(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield each record with its line, except a torn last line.

    Raises:
        DamagedResults: if any line but the last is not a JSON object.
    """
    if not is_present(path):
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            torn = not line.endswith(b"\n")
            try:
                record = None if torn else orjson.loads(line)
            except orjson.JSONDecodeError:
                record = None
            if isinstance(record, dict):
                yield record, line
            elif file.read(1):
                raise damaged(path, f"line {number} is not a JSON object")


def damaged(path: Path, what: str) -> DamagedResults:
    """Return the error that names a damaged file, the damage and the ways out."""
    return DamagedResults(
        f"{path} is damaged: {what}. Nothing was changed; repair the file, move its directory "
        "away, or start afresh with resume=false (the directory is kept aside)"
    )
