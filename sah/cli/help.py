"""`sah help`: what an option, a group, a key or a command is."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from sah.cli.arguments.parser import Parser
from sah.cli.topics import pages
from sah.cli.topics.options import ALIAS, Option, find_options
from sah.cli.topics.screen import SUBCOMMANDS
from sah.paths import config_folder
from sah.terminal import plain


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "help",
        "Explain an option of any group (its yaml with comments, its class, its paper), a group, "
        "a key, or a command.",
        examples=[
            "help quest",
            "help evictor=streaming_llm",
            "help benchmark",
            "help resume",
            "help benchmark.samples",
        ],
    )
    parser.add_argument(
        "topic",
        nargs="?",
        metavar="TOPIC",
        help="OPTION, GROUP=OPTION, GROUP, KEY or COMMAND; without it, all groups and keys",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="also explain the options of this folder, as for `sah run --config-dir FOLDER`",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Show a page; exit with one message, naming what is similar, if there is none."""
    parser = make_parser()
    given = parser.parse(arguments)
    for folder in given.config_dir:
        if not folder.is_dir():
            parser.error(f"--config-dir {folder} is not a folder")
    folder = config_folder()
    config = Option(group="", name="config", path=folder / "config.yaml")
    options = find_options([folder, *given.config_dir])
    page = _page(given.topic, options, config)
    sys.stdout.write(plain(page.rstrip()) + "\n")


def _page(topic: str | None, options: Sequence[Option], config: Option) -> str:
    if topic is None:
        return pages.overview(options, config)
    if topic in SUBCOMMANDS:
        return _command_page(topic)
    group, _, name = topic.replace("=", "/").rpartition("/")
    group = ALIAS.get(group, group)
    groups = {one.group for one in options}
    if ALIAS.get(topic, topic) in groups:
        return pages.group_page(ALIAS.get(topic, topic), options)
    same = [one for one in options if one.name == name]
    found = [one for one in same if one.group == group or not group]
    # The preset shows the part that it is named after.
    presets = [one for one in found if one.group == "sparse_attention"]
    if len(found) == 1 or presets:
        option = (presets or found)[0]
        return pages.option_page(option, options, [one for one in same if one is not option])
    if found:
        return pages.ambiguous_page(name, found)
    page = pages.key_page(topic, [config, *options])
    if page:
        return page
    known = [*SUBCOMMANDS, *groups, *ALIAS]
    known += [one.title if group else one.name for one in options]
    known += [key.name.rpartition(".")[2] for one in (config, *options) for key in one.read_keys()]
    similar = difflib.get_close_matches(topic, dict.fromkeys(known), n=3)
    meant = f"did you mean {' or '.join(similar)}?" if similar else "`sah help` lists all"
    sys.exit(plain(f"sah help: {topic!r} is not an option, a group, a key or a command; {meant}"))


def _command_page(name: str) -> str:
    import importlib

    parser: Parser = importlib.import_module(f"sah.cli.{name}").make_parser()
    return parser.format_help()
