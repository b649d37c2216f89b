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
    integer must fit into 64 bits, since results could not store it otherwise. The last two hold
    for every number inside a value, and also where `kind` does not say what the value must be.

    Yields:
        The field's name and what is wrong, for example `must be a whole number, got 2.5`.
    """
    hints = _hints(kind) if is_dataclass(kind) else {}
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            yield name, f"must be {_described(hints[name])}, got {value!r}"
        else:
            yield from unstorable(value, name)


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


def unstorable(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Find the numbers inside a value that no result could store.

    Yields:
        The dotted name and what is wrong, for each number that is NaN, infinite or beyond 64 bits.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from unstorable(item, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from unstorable(item, f"{name}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, f"must be a finite number, got {value!r}"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield name, f"must fit into 64 bits, from -2**63 to 2**63 - 1, got {value!r}"


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
