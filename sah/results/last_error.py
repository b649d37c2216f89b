"""The last failure of an experiment, in error.json."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sah.errors import DamagedResults
from sah.results.files import read_json, write_json
from sah.results.schema import LastError

ERROR = "error.json"


def write_error(directory: Path, kind: str, name: str, message: str, trace: str) -> None:
    """Write error.json, counting the failures before this one."""
    before = read_error(directory)
    error = LastError(
        category=kind,
        type=name,
        message=message,
        traceback=trace,
        attempt=1 if before is None else before.attempt + 1,
        time=datetime.now(UTC).isoformat(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / ERROR, error)


def read_error(directory: Path) -> LastError | None:
    """Read error.json; None if there is none or it cannot be read."""
    path = directory / ERROR
    try:
        return msgspec.convert(read_json(path), LastError)
    except (OSError, DamagedResults, msgspec.ValidationError):
        return None
