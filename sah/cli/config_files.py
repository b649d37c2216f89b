"""What configuration files hold, looked at before Hydra ends with a traceback."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# omegaconf writes and reads paths with these.
_PATHS = "tag:yaml.org,2002:python/object/apply:pathlib."
_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")


def config_folders(arguments: Sequence[str], default: Path) -> list[Path]:
    """The folders that a command line takes configuration files from, `default` included."""
    found = [default]
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in _FLAGS:
            following = arguments[position + 1 : position + 2]
            found += [Path(folder) for folder in ([value] if equals else following)]
    return found


def unreadable(folders: Sequence[Path]) -> str | None:
    """What is wrong with the first file that omegaconf could not read; None if nothing is.

    Args:
        folders: each is looked at as Hydra does: its own files, and those of groups that the
            first one has too.
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
    """Tags that make objects, and keys that are there twice, both with their lines."""
    waiting = [yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        line = node.start_mark.line + 1
        if ":python/" in node.tag and not node.tag.startswith(_PATHS):
            yield f"line {line}: the tag {node.tag} makes a Python object, which is not read"
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen and isinstance(key, yaml.ScalarNode):
                    yield f"line {key.start_mark.line + 1}: the key {key.value!r} is there twice"
                seen.add(str(key.value))
                waiting += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def keys_of(path: Path) -> set[str]:
    """What a primary configuration holds at its top: the groups it composes, and its own keys."""
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    groups = {
        str(group).removeprefix("override ")
        for entry in content.pop("defaults")
        if isinstance(entry, dict)
        for group in entry
    }
    return groups | set(content)
