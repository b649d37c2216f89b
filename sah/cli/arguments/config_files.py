"""Checks of configuration files that Hydra would end with a traceback for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from sah.paths import config_folder, studies_folder

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# omegaconf writes and reads paths with these tags.
_PATHS = "tag:yaml.org,2002:python/object/apply:pathlib."
# Python refuses to parse integers of more than 4,300 digits.
_MOST_DIGITS = 1000
_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")


def config_folders(arguments: Sequence[str], default: Path) -> list[Path]:
    """Return the folders of configuration files that a command line names, and the default one."""
    return [default, *(Path(folder) for folder in _values(arguments, _FLAGS))]


def shipped_study(arguments: Sequence[str]) -> Path | None:
    """Return the folder of the shipped studies if --config-name needs it, else None.

    It names a shipped study, or a file in a folder of the command line that builds on one.
    """
    names = _values(arguments, ("--config-name", "-cn"))
    folders = config_folders(arguments, config_folder())
    if not names or studies_folder().resolve() in [folder.resolve() for folder in folders]:
        return None
    file = f"{names[-1].removesuffix('.yaml')}.yaml"
    own = next((folder / file for folder in folders if (folder / file).is_file()), None)
    files = [file] if own is None else [f"{name}.yaml" for name in _built_on(own)]
    return studies_folder() if any((studies_folder() / one).is_file() for one in files) else None


def _built_on(path: Path) -> list[str]:
    """Return the primary configurations that a file names in its defaults; none if unreadable."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError):
        return []
    defaults = content.get("defaults") if isinstance(content, dict) else None
    return [one for one in defaults or [] if isinstance(one, str)]


def _values(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the values of some flags, given as --flag VALUE or --flag=VALUE."""
    found: list[str] = []
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            found += [value] if equals else arguments[position + 1 : position + 2]
    return found


def unreadable(folders: Sequence[Path]) -> str | None:
    """Describe what is wrong with the first file that omegaconf cannot read; None if all are fine.

    Args:
        folders: of each, the files that Hydra would read are checked: those at its top, and
            those of groups that the first folder has too.
    """
    groups = [path.name for path in folders[0].iterdir() if path.is_dir()]
    for folder in folders:
        below = [path for group in groups for path in (folder / group).rglob("*.yaml")]
        for path in sorted([*folder.glob("*.yaml"), *below]):
            try:
                mistake = next(_mistakes(path), None)
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                mistake = " ".join(str(error).split())
            if mistake is not None:
                return f"{path}: {mistake}; mend it, or move it out of the folder of configurations"
    return None


def _mistakes(path: Path) -> Iterator[str]:
    """Find tags that would make Python objects, duplicate keys and endless numbers, by line."""
    waiting = [yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        line = node.start_mark.line + 1
        if ":python/" in node.tag and not node.tag.startswith(_PATHS):
            yield f"line {line}: the tag {node.tag} would make a Python object, which is refused"
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MOST_DIGITS:
            yield f"line {line}: a number of {len(node.value)} digits does not fit into 64 bits"
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen and isinstance(key, yaml.ScalarNode):
                    yield f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice"
                seen.add(str(key.value))
                waiting += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def keys_of(path: Path) -> set[str]:
    """Return the top-level keys of a primary configuration: its groups and its own keys."""
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    groups = {
        str(group).removeprefix("override ")
        for entry in content.pop("defaults")
        if isinstance(entry, dict)
        for group in entry
    }
    return groups | set(content)
