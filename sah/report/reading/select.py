"""Choosing experiments by their names and settings: `model=llama,mistral,benchmark=ruler`."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from sah.errors import ConfigurationError
from sah.report.reading.collect import Run

NAMES = ("model", "attention", "benchmark", "subset", "protocol", "fingerprint")
"""Keys that every run has; any other is a key of the configuration or the end of one."""

Conditions = dict[str, list[str]]


def parse_conditions(texts: Sequence[str]) -> Conditions:
    """Parse KEY=VALUE[,VALUE...][,KEY=VALUE...]; values may hold * and ?.

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
                    f"{text!r} is no condition; write KEY=VALUE, for example "
                    "model=llama,mistral,benchmark=ruler"
                )
            conditions.setdefault(key, []).append(part.strip())
    return conditions


def select(runs: Sequence[Run], conditions: Conditions) -> list[Run]:
    """The runs that meet all conditions.

    Raises:
        ConfigurationError: if no run has such a key, naming similar ones.
    """
    keys = {name: resolve_key(name, runs) for name in conditions}
    return [
        run
        for run in runs
        if all(
            _matches(value_of(run, keys[name]), accepted) for name, accepted in conditions.items()
        )
    ]


def resolve_key(name: str, runs: Sequence[Run]) -> str:
    """The full key that a name stands for: its own, or the one that ends with it.

    Raises:
        ConfigurationError: if none does, or several do.
    """
    if name in NAMES:
        return name
    known = {key for run in runs for key in run.config}
    if name == "sparse_attention":
        return "attention"
    if name in known:
        return name
    ends = sorted(key for key in known if key.endswith(f".{name}"))
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigurationError(f"{name!r} is the end of several keys: {', '.join(ends)}")
    similar = difflib.get_close_matches(name, [*NAMES, *known], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    raise ConfigurationError(f"no experiment has the key {name!r}{hint}")


def value_of(run: Run, key: str) -> Any:
    """The value of a full key; None where a run does not have it."""
    return getattr(run, key) if key in NAMES else run.config.get(key)


def _matches(value: Any, accepted: Sequence[str]) -> bool:
    text = shown_value(value)
    return any(text == pattern or fnmatchcase(text, pattern) for pattern in accepted)


def shown_value(value: Any) -> str:
    """A value as the command line would spell it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
