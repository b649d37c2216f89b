"""Checking what a configuration file or a command line put into a dataclass."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable

# In yaml 1 is a good value for a float.
_NUMBERS = BeartypeConf(is_pep484_tower=True)


def check_types(instance: Any) -> None:
    """Check the fields of a dataclass against their annotations; call from __post_init__.

    Raises:
        ValueError: naming the field, its type and the value.
    """
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        # True is an int to Python, and a mistake to a researcher.
        stray_bool = isinstance(value, bool) and bool not in (hint, *get_args(hint))
        if stray_bool or not is_bearable(value, hint, conf=_NUMBERS):
            expected = hint.__name__ if isinstance(hint, type) else str(hint)
            raise ValueError(
                f"{type(instance).__name__}: {field.name} must be {expected}, got {value!r}"
            )
