"""Escaping of untrusted text (from models, data sets and files) for the terminal.

Standard library only.
"""

import logging
import re

# Control characters except tab and line feed, and those that change the reading direction.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""Escape the characters that control a terminal: an escape character becomes `\x1b`."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PlainFormatter(logging.Formatter):
    """A log formatter that escapes control characters, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and escape its control characters."""
        return plain(super().format(record))
