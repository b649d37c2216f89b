"""Checking field types of configured dataclasses."""

import functools
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable

# In yaml, 1 is a valid float.
_NUMBERS = BeartypeConf(is_pep484_tower=True)

_LARGEST_INTEGER = 2**63 - 1

_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def check_types(instance: Any) -> None:
    """Check the fields of a dataclass against their annotations; call from __post_init__.

    Raises:
        ValueError: naming the class, the field, its type and the value.
    """
    values = {field.name: getattr(instance, field.name) for field in fields(instance)}
    for name, problem in wrong_fields(type(instance), values):
        raise ValueError(f"{type(instance).__name__}: {name} {problem}")


def wrong_fields(kind: type, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find the values that do not fit a dataclass's field of the same name.

    Stricter than Python: true is not a number, NaN and infinity are not numbers, and an
    integer must fit into 64 bits, since results could not store it otherwise.

    Yields:
        The field's name and what is wrong, for example `must be a whole number, got 2.5`.
    """
    if not is_dataclass(kind):
        return
    hints = _hints(kind)
    for field in fields(kind):
        if field.name not in values:
            continue
        value, hint = values[field.name], hints[field.name]
        if not _fits(value, hint):
            yield field.name, f"must be {_described(hint)}, got {value!r}"
        else:
            unstorable = next(_unstorable(value), None)
            if unstorable is not None:
                yield field.name, f"must be finite and fit into 64 bits, got {unstorable!r}"


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Resolve the annotations of a class once: the cells of a sweep share their classes."""
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value fits a type, all items included: beartype samples one item at random."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin in (Sequence, list):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
        )
    if getattr(hint, "_is_protocol", False):
        # What a group's option configures: an object, never plain data.
        return not isinstance(value, str | int | float | Sequence | Mapping | None)
    # True is an int to Python, but a mistake in a configuration.
    if isinstance(value, bool) and hint in (int, float):
        return False
    return is_bearable(value, hint, conf=_NUMBERS)


def _unstorable(value: Any) -> Iterator[int | float]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _unstorable(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _unstorable(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield value
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        yield value


def _described(hint: Any) -> str:
    """A type in words, for people who write yaml."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(option) for option in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Sequence, list):
        return f"a list (each item {_described(arguments[0])})"
    if origin is Mapping:
        return "a mapping"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))
