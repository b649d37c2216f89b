"""Writing what a report is asked for: a file is whole or unchanged, whatever interrupts it."""

from pathlib import Path

from sah.errors import SahError
from sah.results.files import write_atomically


def save(target: Path, content: bytes) -> None:
    """Write a file; its folder is created.

    A symbolic link is followed, and what is not a file, such as /dev/stdout, is written directly.

    Raises:
        SahError: if it cannot be written; it is unchanged then.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            target.write_bytes(content)
        else:
            write_atomically(target.resolve(), content)
    except OSError as error:
        raise SahError(
            f"{target} cannot be written: {error.strerror}; make room, or choose another place"
        ) from error
