"""Adding lines to a file. Standard library only."""

import os
from pathlib import Path


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
