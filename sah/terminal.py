"""Text for the terminal: untrusted text escaped, and the command to type next.

Standard library only.
"""

import logging
import re
import shlex

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


class PlainFormatter(logging.Formatter):
    """A log formatter that escapes control characters, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and escape its control characters."""
        return plain(super().format(record))
