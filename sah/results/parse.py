"""Building the frozen types of `schema` from parsed JSON, with every type checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

Reader = Callable[[Any], Any]


class WrongField(Exception):
    """A field that is missing or has another type than the schema says."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(f"{'.'.join(path)} {reason}")
        self.reason = reason
        self.path = path


def reader(hint: Any) -> Reader:
    """Return a function that converts parsed JSON to a type and raises WrongField if it cannot.

    Made once a type: ten thousand files are read in seconds. Unknown keys are ignored.

    Args:
        hint: a dataclass, or the annotation of one of its fields.
    """
    if is_dataclass(hint):
        return _dataclass_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union_reader(hint)
    if origin is Mapping:
        return _mapping_reader(reader(arguments[1]))
    if origin is Sequence:
        return _sequence_reader(reader(arguments[0]))
    if hint is Any:
        return lambda value: value
    # A JSON number without a fraction is a float too.
    accepted = (float, int) if hint is float else hint

    def read(value: Any) -> Any:
        if not isinstance(value, accepted) or (value.__class__ is bool and hint is not bool):
            raise WrongField(f"must be {_NAMES[hint]}, got {value!r:.60}")
        return value

    return read


_NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = [
        (one.name, reader(hints[one.name]), _is_optional(one)) for one in fields(kind) if one.init
    ]

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongField(f"must be an object, got {value!r:.60}")
        given = {}
        for name, convert, optional in readers:
            if name in value:
                try:
                    given[name] = convert(value[name])
                except WrongField as wrong:
                    raise WrongField(wrong.reason, name, *wrong.path) from None
            elif not optional:
                raise WrongField("is missing", name)
        return kind(**given)

    return read


def _is_optional(one: Any) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def _union_reader(hint: Any) -> Reader:
    options = [option for option in get_args(hint) if option is not NoneType]
    nullable = len(options) < len(get_args(hint))
    readers = [reader(option) for option in options]

    def read(value: Any) -> Any:
        if value is None and nullable:
            return None
        for convert in readers[:-1]:
            try:
                return convert(value)
            except WrongField:
                continue
        return readers[-1](value)

    return read


def _mapping_reader(convert: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongField(f"must be an object, got {value!r:.60}")
        found = {}
        for key, item in value.items():
            try:
                found[key] = convert(item)
            except WrongField as wrong:
                raise WrongField(wrong.reason, key, *wrong.path) from None
        return found

    return read


def _sequence_reader(convert: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise WrongField(f"must be a list, got {value!r:.60}")
        return [convert(item) for item in value]

    return read
