"""The maps of the HTML report by layer and head, as JSON."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sah.report.reading.heads import HEAD_METRICS, HEADS, HeadMap, head_maps
from sah.results.schema import RECALL, Result

# About 3 bytes each: 50 experiments of a model with 32 layers of 32 heads stay below 600 kB.
_VALUES = 170_000


def head_data(results: Sequence[Result]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the maps of each result that recorded heads, with its index; later ones may be empty.

    They are empty once the page holds `_VALUES` values.
    """
    left = _VALUES
    for number, result in enumerate(results):
        maps = head_maps([result])
        if not maps:
            continue
        left -= sum(len(row) for one in maps.values() for row in one.values)
        shown = maps if left >= 0 else {}
        yield number, [_map(metric, one) for metric, one in shown.items()]


def _map(metric: str, one: HeadMap) -> dict[str, Any]:
    # Three significant digits of the highest value; shares have at least three decimals.
    high = max(one.known)
    digits = max(3, 2 - math.floor(math.log10(high))) if high > 0 else 3
    return {
        "name": HEAD_METRICS[metric],
        "head": HEADS[metric],
        "digits": digits,
        # As in the figures: a recall is rarely near 0.
        "low": min(one.known) if metric == RECALL else 0.0,
        "high": high,
        "values": [
            [None if value is None else round(value, digits) for value in row] for row in one.values
        ],
    }
