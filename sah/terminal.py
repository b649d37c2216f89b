"""Text for the terminal: untrusted text escaped, the command to type next, failed output.

Standard library only.
"""

import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

# Control characters except tab and line feed, those that change the reading direction, and
# surrogates, which no file can hold.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_COMMANDS = re.compile(f"[{_CONTROLS}]")
_COMMANDS_AND_LINE_ENDS = re.compile(f"[{_CONTROLS}\t\n\u2028\u2029]")


def plain(text: str) -> str:
    r"""Escape the characters that control a terminal: an escape character becomes `\x1b`."""
    return _COMMANDS.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""Escape tabs and line ends as well: a line feed becomes `\n`."""
    return _COMMANDS_AND_LINE_ENDS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def next_command(*words: str, remark: str = "") -> str:
    """Return the line that ends a command: what to type next."""
    return plain(f"next: {shlex.join(words)}" + (f"    # {remark}" if remark else "") + "\n")


@contextmanager
def output_or_exit() -> Iterator[None]:
    """End the process with one message if stdout cannot be written, such as on a full disk.

    A reader that went away, such as `head`, ends it without a message.
    """
    out = sys.stdout
    if out is None:  # closed by the shell (>&-)
        yield
        return

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except OSError as error:
                _exit_without_output(out.fileno(), error)

        return guard

    names = ("write", "flush")
    before = {name: vars(out).get(name) for name in names}
    for name in names:
        setattr(out, name, guarded(getattr(out, name)))
    try:
        yield
    finally:
        try:
            out.flush()
        finally:
            for name, own in before.items():
                if own is None:
                    delattr(out, name)
                else:
                    setattr(out, name, own)


def _exit_without_output(descriptor: int, error: OSError) -> NoReturn:
    # The rest is dropped: otherwise Python would fail to write it once more when it exits.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    if isinstance(error, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE)  # as of a program that the signal ended
    sys.exit(
        f"stdout cannot be written: {error.strerror}; make room, or send the output elsewhere "
        "(results on disk are kept)"
    )


class PlainFormatter(logging.Formatter):
    """A log formatter that escapes control characters, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and escape its control characters."""
        return plain(super().format(record))
