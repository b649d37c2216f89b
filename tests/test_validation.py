import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from sah.validation import check_types, wrong_fields


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
        ("count", "1", "a whole number"),
        ("count", 1.0, "a whole number"),
        ("count", None, "a whole number"),
        ("count", True, "a whole number"),
        ("share", "half", "a number"),
        ("share", True, "a number"),
        ("share", None, "a number"),
        ("name", 3, "text"),
        ("name", None, "text"),
        ("on", 1, "true or false"),
        ("on", "true", "true or false"),
        ("limit", False, "a whole number or null"),
        ("limit", 2.5, "a whole number or null"),
        ("names", [1], "a list"),
        ("names", [*"abcdefghij", 1], "a list"),
        ("names", ["a", None], "a list"),
        ("names", 3, "a list"),
        ("counts", [1, True], "a list"),
        ("kind", "c", "a or b"),
        ("options", [1], "a mapping or null"),
        ("options", {"a": 1, 2: 3}, "a mapping or null"),
        ("share", math.nan, "finite"),
        ("share", math.inf, "finite"),
        ("count", 2**63, "64 bits"),
        ("count", -(2**63) - 1, "64 bits"),
    ],
)
def test_a_wrong_type_is_refused_naming_class_field_type_and_value(field, value, expected):
    with pytest.raises(ValueError, match=rf"^Checked: {field} must .*{expected}") as caught:
        Checked(**{field: value})
    assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": math.nan}, "options.a must be a finite number, got nan"),
        ({"a": [1, {"b": -math.inf}]}, r"options.a\[1\].b must be a finite number, got -inf"),
        ({"a": {"b": 2**64}}, f"options.a.b must fit into 64 bits, .*, got {2**64}"),
    ],
)
def test_a_number_that_no_result_can_store_is_named_wherever_it_is(options, message):
    with pytest.raises(ValueError, match=message):
        Checked(options=options)


def test_numbers_are_checked_where_no_annotation_says_what_they_must_be():
    assert list(wrong_fields(object, {"any": math.inf, "other": 2**63 - 1})) == [
        ("any", "must be a finite number, got inf")
    ]


def test_checking_leaves_the_global_generator_alone():
    """beartype draws at random which item it checks."""
    state = random.getstate()
    Checked(names=["x"] * 10, counts=[1, 2, 3], options={"a": [1, 2]})
    assert random.getstate() == state
