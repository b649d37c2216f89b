"""Overrides that Hydra would refuse late, or with a traceback."""

import re
import sys
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from sah.cli.arguments.config_files import keys_of
from sah.paths import STAGES, config_folder
from sah.terminal import plain


def refuse_mistakes(arguments: Sequence[str]) -> None:
    """Exit with one message for the first argument that cannot work."""
    for argument in arguments:
        _refuse_value_of_alias(argument)
        _refuse_option_without_name(argument)
        _refuse_deletion(argument)
        _refuse_part_without_place(argument)


def _refuse_value_of_alias(argument: str) -> None:
    """Explain that `attention.KEY=` must be spelled `sparse_attention.KEY=`."""
    key = re.match(r"[+~]*attention\.([^=]*)", argument)
    if key:
        sys.exit(
            f"{argument}: attention= only chooses; a value is set with "
            f"sparse_attention.{key.group(1)}="
        )


def _refuse_option_without_name(argument: str) -> None:
    """Refuse a group set to something other than text, which Hydra answers with a traceback."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return  # Not an override, or one that Hydra explains itself.
    except ValueError:
        # Python refuses to parse an integer of more than 4,300 digits.
        sys.exit(plain(f"{argument[:40]}…: the number does not fit into 64 bits"))
    group = "sparse_attention" if override.key_or_group == "attention" else override.key_or_group
    folder = config_folder() / group
    if not folder.is_dir() or group == "hydra" or isinstance(override.value(), Glob):
        return
    # A range or an interval has only numbers.
    listed = override.is_sweep_override() and override.is_choice_sweep()
    for value in list(override.sweep_iterator()) if listed else [override.value()]:
        named = isinstance(value, str | dict) or (value is None and override.is_delete())
        if named or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            continue
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        shown = repr(value) if listed or not override.is_sweep_override() else "numbers"
        sys.exit(
            plain(f"{argument}: {group} takes the name of an option, got {shown}; take {options}")
        )


def _refuse_part_without_place(argument: str) -> None:
    """Refuse a part of an attention without its place; Hydra advises to add it at the top."""
    part = re.fullmatch(rf"\+{{0,2}}({'|'.join(STAGES)})=(\w+)", argument)
    if part:
        place = f"{part[1]}@sparse_attention.{STAGES[part[1]]}"
        sys.exit(
            f"{argument}: say where in the attention: +{place}.{part[2]}={part[2]} adds it, and "
            f"{place}.NAME={part[2]} replaces the part NAME"
        )


def _refuse_deletion(argument: str) -> None:
    """Refuse the deletion of a mandatory key, which a sweep would only notice late."""
    deleted = re.fullmatch(r"~([\w./@]+)(=.*)?", argument)
    if deleted is None:
        return
    if re.match(r"hydra[./]callbacks", deleted[1]):
        sys.exit(
            f"{argument}: this callback checks an experiment before it runs, and skips one that is "
            "complete; to compute it again, set resume=false"
        )
    if deleted[1] in keys_of(config_folder() / "config.yaml"):
        sys.exit(
            f"{argument}: every experiment has {deleted[1]}; leave this out for its default, or "
            f"set it with {deleted[1]}="
        )
