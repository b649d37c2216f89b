"""Files with one JSON object per line, read strictly: nothing is guessed, rounded or dropped."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sah.errors import DatasetError

# About sixteen million tokens. Longer lines are refused before they fill the memory.
_LONGEST_LINE_BYTES = 64 * 10**6

_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_FORMATS = (
    (b"\x1f\x8b", "is compressed; unpack it with `gunzip`"),
    (b"PK\x03\x04", "is a zip archive; unpack it"),
    (b"PAR1", "is a parquet file; write it as one JSON object per line"),
    (b"\xff\xfe", "is UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "is UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`"),
)


class WrittenNumber(float):
    """A number with the text that it was written as, which rounding would change."""

    def __new__(cls, text: str) -> "WrittenNumber":
        """Parse a number of JSON."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def read_numbered_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read one JSON object per line, skipping empty lines and a byte order mark.

    An integer is an int of any size; every other number is a WrittenNumber.

    Yields:
        The number of the line, counted from 1, and the object.

    Raises:
        OSError: if the file cannot be read.
        DatasetError: naming the line and what is wrong with it: not a JSON object, not UTF-8, too
            long, a repeated key, NaN or infinity, half a surrogate pair.
    """
    with open(file, "rb") as lines:
        start = lines.read(4)
        for mark, problem in _OTHER_FORMATS:
            if start.startswith(mark):
                raise DatasetError(f"{file} {problem}")
        lines.seek(len(_UTF8_MARK) if start.startswith(_UTF8_MARK) else 0)
        for number, line in enumerate(_lines(file, lines), start=1):
            if line.strip():
                yield number, _json_object(file, number, line)


def plain_numbers(value: Any) -> Any:
    """Return a value with floats in place of the WrittenNumbers inside it."""
    if isinstance(value, dict):
        return {key: plain_numbers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain_numbers(child) for child in value]
    return float(value) if isinstance(value, WrittenNumber) else value


def _lines(file: Path, lines: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := lines.readline(_LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > _LONGEST_LINE_BYTES:
            raise DatasetError(
                f"{file} line {number} is longer than {_LONGEST_LINE_BYTES // 10**6} MB, more than "
                "any model's context; is there one example per line?"
            )
        yield line


def _json_object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    where = f"{file} line {number}"
    if b"\x00" in line:
        raise DatasetError(f"{where} has a NUL byte; is the file UTF-16, or not text at all?")
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{where} is not UTF-8: byte {line[error.start]:#04x} at position {error.start + 1}"
        ) from error
    try:
        row = json.loads(
            text,
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=WrittenNumber,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at column {error.colno}"
        if error.msg != "Extra data":
            problem = _several_lines(file, text) or problem
        raise DatasetError(f"{where} {problem}") from error
    except RecursionError as error:
        raise DatasetError(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise DatasetError(f"{where} {error}") from error
    if not isinstance(row, dict):
        array = _several_lines(file, text)
        raise DatasetError(f"{where} {array or 'is not a JSON object'}")
    if "\\u" in text:
        _refuse_half_pairs(where, row)
    return row


def _several_lines(file: Path, text: str) -> str | None:
    """Say how to convert a JSON array, or objects of several lines; None if it is neither."""
    if text.startswith("["):
        return (
            "begins a JSON array; give one object per line instead: "
            f"`jq -c '.[]' {file}` converts it"
        )
    if text.startswith("{") and not text.endswith("}"):
        return (
            "begins an object that does not end in the same line; give one object per line: "
            f"`jq -c . {file}` converts it"
        )
    return None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for n, key in enumerate(keys) if key in keys[:n])
        raise ValueError(f"gives the key {repeated!r} twice")
    return values


def _refuse_constant(name: str) -> Mapping[str, Any]:
    raise ValueError(f"has {name}, which is not JSON; write null, or leave the key out")


def _integer(text: str) -> int | WrittenNumber:
    # Only -0 is written otherwise than its value.
    return WrittenNumber(text) if text == "-0" else int(text)


def _refuse_half_pairs(where: str, row: dict[str, Any]) -> None:
    r"""Refuse half a surrogate pair, such as \ud83d, which no tokenizer can encode."""
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DatasetError(f"{where} has {half}, half of a surrogate pair and no text") from error
