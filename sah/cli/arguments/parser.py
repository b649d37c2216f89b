"""The argument parser of every subcommand. Standard library only."""

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from sah.terminal import plain

_WIDTH = 80
_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """An argument parser whose help fits 80 columns and whose errors suggest similar options.

    Positional arguments and options may come in any order.
    """

    def __init__(
        self, command: str, description: str, *, examples: Sequence[str] = (), then: str = ""
    ) -> None:
        """Make the parser of a subcommand.

        Args:
            command: its name.
            description: what it does.
            examples: command lines without the leading `sah`, shown below the options.
            then: what to do next.
        """
        shown = ["examples:", *(f"  sah {line}" for line in examples)] if examples else []
        if then:
            shown += ["", wrapped(f"next: {then}", indent=" " * 6)]
        super().__init__(
            prog=f"sah {command}",
            description=wrapped(description),
            epilog="\n".join(shown).strip(),
            formatter_class=_formatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse arguments in any order; exit with status 2 and one message if they are wrong."""
        return self.parse_intermixed_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Exit with one message; for an unknown option it names the nearest ones."""
        advice = f"`{self.prog} --help` has examples"
        if message.startswith(_UNKNOWN):
            unknown = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            similar = difflib.get_close_matches(unknown, self.option_names, n=2)
            advice = f"did you mean {' or '.join(similar)}?" if similar else advice
        self.exit(2, plain(f"{self.prog}: {message}; {advice}\n"))

    @property
    def option_names(self) -> list[str]:
        """The long names of all options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def values_of(self, option: str) -> list[str]:
        """Return the values that an option may have, if it has a list of them."""
        action = self._option_string_actions.get(option)
        return [] if action is None or action.choices is None else [*map(str, action.choices)]


def wrapped(text: str, indent: str = "") -> str:
    """Wrap a text to 80 columns without breaking what is in backticks.

    Args:
        text: one paragraph.
        indent: of the lines after the first.
    """
    unbroken = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    filled = textwrap.fill(
        unbroken, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return filled.replace("\0", " ")


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=width)


def refuse_other_words(parser: Parser, overrides: Sequence[str]) -> None:
    """Exit with the usage if an argument is not an override."""
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            parser.error(f"{text!r} is not an override; write KEY=VALUE, such as benchmark={text}")
