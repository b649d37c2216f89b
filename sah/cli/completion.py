"""`sah completion`: scripts that complete commands, options and overrides in a shell."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from sah.cli.arguments.config_files import config_folders
from sah.cli.arguments.parser import Parser
from sah.cli.topics.options import find_options
from sah.cli.topics.screen import SUBCOMMANDS
from sah.paths import config_folder

# bash replaces only the part of a word after the last word break, such as `=`.
_BASH = """_sah_complete() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local typed="${line##*[[:space:]]}"
    COMPREPLY=($("$1" completion query "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"${typed%"$2"}"}")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _sah_complete sah
"""
_ZSH = """#compdef sah
_sah() {
    local -a found open
    found=("${(@f)$($words[1] completion query "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then
        _files
        return
    fi
    open=(${(M)found:#*[=./]})
    found=(${found:#*[=./]})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#found )) && compadd -Q -- $found
}
compdef _sah sah
"""
_FISH = """function __sah_complete
    set -l found (sah completion query (commandline -cp) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c sah -f -a '(__sah_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_TAKE_OVERRIDES = ("run", "plan", "doctor", "fetch", "calibrate", "convert", "track")
_NAMES = ("model", "attention", "benchmark", "subset", "protocol", "seed")
"""Keys that every result has."""


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "completion",
        "Print a script that completes commands, their options and overrides in a shell.",
        examples=[
            "completion bash >> ~/.bashrc",
            "completion zsh >> ~/.zshrc     # below compinit",
            "completion fish > ~/.config/fish/completions/sah.fish",
        ],
        then="open a new shell and type `sah run model=` and Tab",
    )
    parser.add_argument("shell", choices=tuple(_SCRIPTS), metavar="SHELL", help="bash, zsh or fish")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print the script of a shell; `query LINE` is what the scripts ask."""
    if len(arguments) == 2 and arguments[0] == "query":
        sys.stdout.write("".join(f"{word}\n" for word in complete(arguments[1])))
        return
    sys.stdout.write(_SCRIPTS[make_parser().parse(arguments).shell])


def complete(line: str) -> list[str]:
    """Return the words that the last word of a command line may become.

    Args:
        line: up to the cursor, the program included. Ending in a space, it asks for a new word.
    """
    words = line.split()
    typed = words.pop() if words and not line[-1].isspace() else ""
    # Variables may be set before the program.
    while words and "=" in words[0]:
        del words[0]
    return [word for word in _candidates(words[1:], typed) if word.startswith(typed)]


def _candidates(words: Sequence[str], typed: str) -> list[str]:
    if not words and not typed.startswith("-") and "=" not in typed:
        if typed == "" or any(name.startswith(typed) for name in SUBCOMMANDS):
            return list(SUBCOMMANDS)
    command = words[0] if words and words[0] in SUBCOMMANDS else "run"
    before = words[-1] if words else ""
    parser: Parser = importlib.import_module(f"sah.cli.{command}").make_parser()
    values = parser.values_of(before)
    if values:
        return values
    if typed.startswith("-"):
        return parser.option_names
    if before in ("--where", "--baseline"):
        return [f"{name}=" for name in _NAMES]
    if before in ("--by", "--pool"):
        return list(_NAMES)
    if command == "completion":
        return list(_SCRIPTS)
    folders = config_folders(words, default=config_folder())
    if command == "help":
        return _topics(folders, typed)
    return _overrides(words, typed, folders) if command in _TAKE_OVERRIDES else []


def _topics(folders: Sequence[Path], typed: str) -> list[str]:
    options = find_options(folders)
    if "=" in typed:
        return [one.title for one in options]
    names = [
        *SUBCOMMANDS,
        "attention",
        *(name for one in options for name in (one.group, one.name)),
    ]
    return sorted(set(names))


def _overrides(words: Sequence[str], typed: str, folders: Sequence[Path]) -> list[str]:
    """Ask Hydra how an override may go on; in a list, for the value after the last comma."""
    from hydra import initialize_config_dir
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    key, equals, values = typed.partition("=")
    listed, comma, _ = values.rpartition(",")
    asked = f"{key}{equals}{values.rpartition(',')[2]}"
    given = [word for word in words if "=" in word and "," not in word and word[0] != "-"]
    if folders[1:]:
        given.append(f"hydra.searchpath=[{','.join(str(one.resolve()) for one in folders[1:])}]")
    with initialize_config_dir(str(folders[0]), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        found = BashCompletion(loader)._query("config", " ".join([*given, asked or " "]))
    found = [word for word in found if "_target_" not in word]
    start = f"{key}{equals}"
    return [f"{start}{listed}{comma}{word.removeprefix(start)}" for word in found]
