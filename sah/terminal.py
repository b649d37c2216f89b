"""Text from models, data sets and files of others, made harmless for a terminal.

Standard library only.
"""

import logging
import re

# Control characters but for tab and line feed, and those that turn the reading direction.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""Spell out what a terminal would obey: an escape character becomes `\x1b`."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PlainFormatter(logging.Formatter):
    """Formats log lines, tracebacks included, without anything that a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as the terminal shows it."""
        return plain(super().format(record))
