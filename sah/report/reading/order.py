"""The order in which runs are shown: by what they measure, dense first, numbers by size."""

import re
from collections.abc import Sequence
from typing import Any

from sah.report.reading.collect import Run
from sah.report.reading.differences import METHOD, differing_keys, method_settings
from sah.report.reading.select import shown_value


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Model, benchmark and its settings, then the method: dense first, then by name."""
    keys = differing_keys(runs)
    of_method = [key for key in keys if key.startswith(METHOD)]
    others = [key for key in keys if key not in of_method]

    def place(item: tuple[Run, str]) -> list[Any]:
        run, settings = item
        names = (run.model, run.benchmark, run.subset, run.protocol)
        values = [natural(run.config.get(key)) for key in others]
        dense_first = (run.attention != "dense", natural(run.attention))
        return [*map(natural, names), *values, dense_first, natural(settings)]

    paired = zip(runs, method_settings(runs, of_method), strict=True)
    return [run for run, _ in sorted(paired, key=place)]


def natural(value: Any) -> tuple[Any, ...]:
    """A key that sorts 2 before 10, also inside a text, and what is missing first."""
    if value is None:
        return ()
    parts = re.split(r"(\d+(?:\.\d+)?)", shown_value(value))
    return tuple((float(part), "") if n % 2 else (0.0, part) for n, part in enumerate(parts))
