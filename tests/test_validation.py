import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class Checked:
    count: int = 1
    share: float = 0.5
    name: str = "name"
    on: bool = True
    limit: int | None = None
    names: Sequence[str] = ()
    counts: Sequence[int] | Literal["all"] = "all"
    kind: Literal["a", "b"] = "a"
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_types(self)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"share": 1},
        {"limit": 3},
        {"names": ["x", "y"]},
        {"names": ("x",)},
        {"names": []},
        {"counts": [1, 2]},
        {"on": False},
        {"kind": "b"},
        {"options": {"a": True}},
    ],
)
def test_values_of_the_annotated_type_pass(values):
    Checked(**values)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("count", "1", "int"),
        ("count", 1.0, "int"),
        ("count", None, "int"),
        ("count", True, "int"),
        ("share", "half", "float"),
        ("share", True, "float"),
        ("share", None, "float"),
        ("name", 3, "str"),
        ("name", None, "str"),
        ("on", 1, "bool"),
        ("on", "true", "bool"),
        ("limit", False, r"int \| None"),
        ("limit", 2.5, r"int \| None"),
        ("names", [1], "Sequence"),
        ("names", [*"abcdefghij", 1], "Sequence"),
        ("names", ["a", None], "Sequence"),
        ("names", 3, "Sequence"),
        ("counts", [1, True], "Sequence"),
        ("kind", "c", "Literal"),
        ("options", [1], "Mapping"),
        ("options", {"a": 1, 2: 3}, "Mapping"),
    ],
)
def test_a_wrong_type_is_refused_naming_class_field_type_and_value(field, value, expected):
    with pytest.raises(ValueError, match=rf"^Checked: {field} must be .*{expected}") as caught:
        Checked(**{field: value})
    assert str(caught.value).endswith(f"got {value!r}")


def test_checking_leaves_the_global_generator_alone():
    """beartype draws at random which item it checks."""
    state = random.getstate()
    Checked(names=["x"] * 10, counts=[1, 2, 3], options={"a": [1, 2]})
    assert random.getstate() == state
