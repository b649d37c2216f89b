"""The order in which results are shown: by what they measure, dense first, numbers by size."""

import re
from collections.abc import Sequence
from typing import Any

from sah.report.reading.differences import METHOD, differing_keys, method_settings
from sah.report.reading.select import shown_value
from sah.results.schema import Result


def in_order(results: Sequence[Result]) -> list[Result]:
    """Sort by model, benchmark and its settings, then by method: dense first, then by name."""
    keys = differing_keys(results)
    of_method = [key for key in keys if key.startswith(METHOD)]
    others = [key for key in keys if key not in of_method]

    def rank(item: tuple[Result, str]) -> list[Any]:
        result, settings = item
        names = (result.model, result.benchmark, result.subset_name, result.protocol)
        values = [natural(result.settings.get(key)) for key in others]
        dense_first = (result.attention != "dense", natural(result.attention))
        return [*map(natural, names), *values, dense_first, natural(settings)]

    paired = zip(results, method_settings(results, of_method), strict=True)
    return [result for result, _ in sorted(paired, key=rank)]


def natural(value: Any) -> tuple[Any, ...]:
    """Return a sort key that puts 2 before 10, also inside text, and missing values first."""
    if value is None:
        return ()
    parts = re.split(r"(\d+(?:\.\d+)?)", shown_value(value))
    return tuple((float(part), "") if n % 2 else (0.0, part) for n, part in enumerate(parts))
