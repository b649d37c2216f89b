"""Type checks for dataclasses that are filled from yaml or the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable

# An int is accepted for a float: yaml reads `1` as an int.
_NUMBERS = BeartypeConf(is_pep484_tower=True)


def check_types(instance: Any) -> None:
    """Check every field of a dataclass against its annotation; call from __post_init__.

    Raises:
        ValueError: if a value has the wrong type; names the field, its type and the value.
    """
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if not _fits(value, hint):
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            raise ValueError(
                f"{type(instance).__name__}: {field.name} must be {expected}, got {value!r}"
            )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value and all of its items fit; beartype checks only one item, drawn at random."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Sequence and isinstance(value, Sequence):
        return all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping and isinstance(value, Mapping):
        return all(
            _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
        )
    # bool is a subclass of int, but True for a number is always a mistake.
    if isinstance(value, bool) and hint in (int, float):
        return False
    return is_bearable(value, hint, conf=_NUMBERS)
