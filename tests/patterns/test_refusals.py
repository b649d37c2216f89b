"""What patterns refuse at construction, and that they say why."""

from typing import Any

import pytest

from sah.patterns.block_top_k import BlockTopK
from sah.patterns.flexprefill import FlexPrefill
from sah.patterns.moba import MoBA
from sah.patterns.vertical_slash import VerticalSlash
from sah.patterns.xattention import XAttention

SHARES = {"vertical_fraction": 0.1, "slash_fraction": 0.1}


@pytest.mark.parametrize(
    ("pattern", "fields", "message"),
    [
        (VerticalSlash, {}, "give exactly one of verticals and vertical_fraction, got verticals=N"),
        (VerticalSlash, SHARES | {"slashes": 200}, "exactly one of slashes and slash_fraction"),
        (
            VerticalSlash,
            SHARES | {"slash_fraction": 0.0},
            "slash_fraction must be in (0, 1], got 0",
        ),
        (VerticalSlash, SHARES | {"last_queries": 0}, "last_queries must be a whole number of at"),
        (
            VerticalSlash,
            SHARES | {"sinks": -1},
            "sinks must be a whole number of at least 0, got -1",
        ),
        (
            VerticalSlash,
            {"verticals": 20, "slash_fraction": 0.1},
            "verticals=20 is less than sinks=30, which are always read and count towards it; raise "
            "verticals or lower sinks",
        ),
        (
            VerticalSlash,
            {"vertical_fraction": 0.1, "slashes": 50},
            "slashes=50 is less than local=100",
        ),
        (BlockTopK, {"blocks": 2, "fraction": 0.5}, "got blocks=2 and fraction=0.5"),
        (BlockTopK, {"blocks": 0}, "blocks must be a whole number of at least 1, got 0"),
        (BlockTopK, {"blocks": 2, "block": 0}, "block must be a whole number of at least 1, got 0"),
        (FlexPrefill, {"gamma": 1.5}, "gamma must be in (0, 1], got 1.5"),
        (FlexPrefill, {"tau": -0.1}, "tau must be in [0, 1], got -0.1"),
        (FlexPrefill, {"min_budget": 0}, "min_budget must be a whole number of at least 1, got 0"),
        (XAttention, {"threshold": 0.0}, "threshold must be in (0, 1], got 0.0"),
        (
            XAttention,
            {"stride": 48},
            "block=128 is not a multiple of stride=48; set block to one, such as 96",
        ),
        (MoBA, {"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_limit(
    pattern: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=pattern.__name__) as refused:
        pattern(**fields)
    assert message in str(refused.value)
