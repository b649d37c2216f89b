"""Hydra's own flags, and its errors as one message each instead of tracebacks."""

import difflib
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal import hydra as application
from hydra._internal import utils
from hydra.errors import CompactHydraException, HydraException
from omegaconf.errors import OmegaConfBaseException

from sah.cli.arguments.config_files import keys_of
from sah.execution.building import explain, nearest
from sah.execution.hydra_settings import refused_search_path
from sah.paths import config_folder, studies_folder
from sah.terminal import plain


class ExperimentFailed(CompactHydraException):
    """Makes Hydra print one message instead of a traceback."""


_SHELLS = ("bash", "fish", "zsh")
# What Hydra and its plugins raise for settings of theirs that they do not check.
_OF_HYDRA = (AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
_HYDRA = ("hydra.", "hydra_plugins.hydra_", "omegaconf.")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the flags of a command line."""
    return bool(_parser().parse_known_args(arguments)[0].help)


def refused_flags(arguments: Sequence[str]) -> str | None:
    """Describe what is wrong with the flags of a command line; None if they are fine.

    Exits with the usage for a flag without its value.
    """
    parser = _parser()
    flags, unknown = parser.parse_known_args(arguments)
    wrong = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    if wrong:
        known = [name for name in parser._option_string_actions if name.startswith("--")]
        similar = difflib.get_close_matches(wrong[0], known, n=1)
        meant = f"did you mean {similar[0]}?" if similar else "`sah run --help` lists the flags"
        return f"{wrong[0]} is not a flag; {meant}"
    if unknown:
        return (
            f"{unknown[0]} comes after a flag in the middle of the overrides; give flags such as "
            "-m first, then all overrides"
        )
    if flags.experimental_rerun is not None:
        return (
            f"--experimental-rerun={flags.experimental_rerun} is refused: it would run a pickle, "
            "which nothing here writes, without a check; give the overrides again, which are in "
            "overrides.yaml of the experiment's directory"
        )
    if flags.hydra_help:
        return None
    words = [text for text in flags.overrides if "=" not in text and not text.startswith("~")]
    if words and not flags.shell_completion:
        return f"{words[0]!r} is not an override; write KEY=VALUE. {_meant(words[0])}"
    return (
        _two_commands(flags)
        or _lone_modifier(flags)
        or _shell_completion(flags)
        or _no_such_config(flags)
        or refused_search_path(flags.overrides)
    )


def _parser() -> ArgumentParser:
    # With its type, which Hydra leaves open.
    parser: ArgumentParser = utils.get_args_parser()
    return parser


def _meant(word: str) -> str:
    """Say in which groups a word is an option."""
    chosen = keys_of(config_folder() / "config.yaml")
    groups = [
        "attention" if path.parent.name == "sparse_attention" else path.parent.name
        for path in sorted(config_folder().glob("*/*.yaml"))
        if path.stem == word and path.parent.name in chosen
    ]
    if groups:
        return f"Did you mean {' or '.join(f'{group}={word}' for group in groups)}?"
    return "`sah help` lists the groups and their options"


def _two_commands(flags: Namespace) -> str | None:
    given = {
        "--run": flags.run,
        "--multirun (-m)": flags.multirun,
        "--cfg": flags.cfg is not None,
        "--shell-completion": flags.shell_completion,
        "--info": flags.info is not None,
    }
    names = [name for name, is_given in given.items() if is_given]
    if len(names) < 2:
        return None
    return (
        f"{' and '.join(names)} exclude each other: give one of them. --cfg and --info show the "
        "configuration of one experiment, without -m and with one value for each key"
    )


def _lone_modifier(flags: Namespace) -> str | None:
    if flags.resolve and flags.cfg is None:
        return "--resolve says how to show a configuration; add --cfg job"
    if flags.package is not None and flags.cfg is None:
        return f"--package={flags.package} says what to show of a configuration; add --cfg job"
    if flags.resolve and flags.cfg == "hydra":
        return (
            "--cfg hydra --resolve: Hydra's settings refer to those of the experiment, such as "
            "output_root; show both with --cfg all --resolve"
        )
    return None


def _no_such_config(flags: Namespace) -> str | None:
    """Hydra lists where it looked, not what is there."""
    name = flags.config_name
    if name is None or any(text.startswith("hydra.searchpath") for text in flags.overrides):
        return None
    folders = [Path(one) for one in (flags.config_path, flags.config_dir) if one]
    folders = [one for one in (*folders, config_folder(), studies_folder()) if one.is_dir()]
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if name.removesuffix(".yaml") in known or "/" in name:
        return None
    return (
        f"--config-name {name}: no such file in {', '.join(map(str, folders))}; "
        f"{nearest(name, known)} --config-dir FOLDER adds a folder"
    )


def _shell_completion(flags: Namespace) -> str | None:
    if not flags.shell_completion:
        return None
    commands = [text.partition("=") for text in flags.overrides]
    named = [(name, shell) for name, _, shell in commands if name in ("install", "uninstall")]
    if any(name == "query" for name, _, _ in commands):
        # Asked by the shell itself, which says what was typed.
        return None if "COMP_LINE" in os.environ else "--shell-completion query=… is for shells"
    if len(named) == 1 and named[0][1] in _SHELLS:
        return None
    return (
        "--shell-completion takes install=SHELL or uninstall=SHELL with one of "
        f'{", ".join(_SHELLS)}: eval "$(python run.py --shell-completion install=bash)"'
    )


@contextmanager
def one_message() -> Iterator[None]:
    """Let Hydra end with one message where it would show a traceback of itself.

    HYDRA_FULL_ERROR=1 shows the traceback. Uses a private function of Hydra 1.3.
    """
    report = utils.run_and_report

    def report_explained(task: Callable[[], Any]) -> Any:
        return report(lambda: _explained(task))

    # Both modules have the function under its name.
    vars(utils)["run_and_report"] = vars(application)["run_and_report"] = report_explained
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        # From --info and --help, which Hydra does not guard.
        if _full_errors():
            raise
        sys.exit(plain(explain(error)))
    finally:
        vars(utils)["run_and_report"] = vars(application)["run_and_report"] = report


def _explained(task: Callable[[], Any]) -> Any:
    try:
        return task()
    except (HydraException, OmegaConfBaseException) as error:
        is_ours = type(error) is CompactHydraException or isinstance(error, ExperimentFailed)
        if is_ours or _full_errors():
            raise
        # Without a cause, whose message Hydra would add.
        raise CompactHydraException(plain(explain(error))) from None
    except _OF_HYDRA as error:
        if _full_errors() or not _is_of_hydra(error):
            raise
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CompactHydraException(
            plain(f"Hydra cannot use its own settings of this command line: {reason}")
        ) from None


def _is_of_hydra(error: Exception) -> bool:
    """Whether Hydra or a plugin of it failed, before any of our code was at work."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code.co_name == "run_job" for frame in frames):
        return False
    modules = [str(frame.f_globals.get("__name__")) for frame in frames]
    # Mistakes with what it is given surface there: os.environ[...], importlib.
    foreign = [one for one in modules if one.partition(".")[0] not in sys.stdlib_module_names]
    return foreign[-1].startswith(_HYDRA)


def _full_errors() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"
