"""Choosing results by their names and settings: `model=llama,mistral,benchmark=ruler`."""

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from sah.errors import ConfigurationError

NAMES = ("model", "attention", "benchmark", "subset", "protocol", "fingerprint")
"""Keys that every result has; any other is a key of the configuration or the end of one."""


class Described(Protocol):
    """What has names and settings: a result, or an experiment without one."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def attention(self) -> str: ...  # noqa: D102
    @property
    def benchmark(self) -> str: ...  # noqa: D102
    @property
    def subset_name(self) -> str: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102


OneDescribed = TypeVar("OneDescribed", bound=Described)

Conditions = dict[str, list[str]]


def parse_conditions(texts: Sequence[str]) -> Conditions:
    """Parse KEY=VALUE[,VALUE...][,KEY=VALUE...]; values may contain the wildcards * and ?.

    Raises:
        ConfigurationError: if a text does not begin with KEY=.
    """
    conditions: Conditions = {}
    for text in texts:
        key = ""
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals:
                key, part = name.strip(), value
            if not key:
                raise ConfigurationError(
                    f"{text!r} is not a condition; write KEY=VALUE, for example "
                    "model=llama,mistral,benchmark=ruler"
                )
            conditions.setdefault(key, []).append(part.strip())
    return conditions


def select(results: Sequence[OneDescribed], conditions: Conditions) -> list[OneDescribed]:
    """Return the results that meet all conditions.

    Raises:
        ConfigurationError: if no result has such a key, naming similar ones.
    """
    keys = {name: resolve_key(name, results) for name in conditions}
    return [
        result
        for result in results
        if all(
            _matches(value_of(result, keys[name]), accepted)
            for name, accepted in conditions.items()
        )
    ]


def resolve_key(name: str, results: Sequence[Described]) -> str:
    """Return the full key that a name stands for: the key itself, or the only one it ends.

    Raises:
        ConfigurationError: if there is none, or several.
    """
    if name in NAMES:
        return name
    known = {key for result in results for key in result.settings}
    if name == "sparse_attention":
        return "attention"
    if name in known:
        return name
    ends = sorted(key for key in known if key.endswith(f".{name}"))
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigurationError(f"several keys end in {name!r}: {', '.join(ends)}")
    similar = difflib.get_close_matches(name, [*NAMES, *known], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    raise ConfigurationError(f"no experiment has the key {name!r}{hint}")


def value_of(result: Described, key: str) -> Any:
    """Return the value of a full key; None if the result does not have it."""
    if key == "subset":
        return result.subset_name
    return getattr(result, key) if key in NAMES else result.settings.get(key)


def _matches(value: Any, accepted: Sequence[str]) -> bool:
    text = shown_value(value)
    return any(text == pattern or fnmatchcase(text, pattern) for pattern in accepted)


def shown_value(value: Any) -> str:
    """Spell a value as on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
