"""Escaping of untrusted text (from models, data sets and files) for the terminal.

Standard library only.
"""

import logging
import re

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


class PlainFormatter(logging.Formatter):
    """A log formatter that escapes control characters, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and escape its control characters."""
        return plain(super().format(record))
