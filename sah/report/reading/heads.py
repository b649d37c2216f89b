"""Micro metrics by layer and head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from sah.report.reading.answers import read_micro_metrics
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL, ROWS_READ, Result

HEAD_METRICS: Mapping[str, str] = {
    OUTPUT_ERROR: "output error",
    RECALL: "recall",
    DENSITY: "density",
    ROWS_READ: "rows read",
}
"""Micro metrics that may be recorded per head, with their names."""

HEADS = {name: "key-value head" if name == ROWS_READ else "head" for name in HEAD_METRICS}
"""The heads that each of them has values of."""


@dataclass(frozen=True, kw_only=True)
class HeadMap:
    """Means of one micro metric over the recorded queries of some results."""

    values: Sequence[Sequence[float | None]]
    """A row per layer from 0, with a value per head; None where nothing was recorded."""

    @property
    def known(self) -> list[float]:
        """All values that were recorded."""
        return [value for row in self.values for value in row if value is not None]


def has_heads(result: Result) -> bool:
    """Whether an experiment was to record the values of heads."""
    return bool(result.settings.get("metric_logging.per_head"))


def head_maps(results: Sequence[Result]) -> dict[str, HeadMap]:
    """Return the maps of the metrics that were recorded per head, by metric name."""
    frames = [read_micro_metrics(result, per_head=True) for result in results if has_heads(result)]
    if not frames:
        return {}
    by_head = (
        pl.concat(frames)
        .filter(pl.col("metric").is_in(list(HEAD_METRICS)))
        .with_columns(head=pl.int_ranges(pl.col("heads").list.len()))
        .explode("heads", "head")
        .drop_nulls(["heads", "layer_idx"])
        .group_by("metric", "layer_idx", "head")
        .agg(pl.col("heads").dot(pl.col("queries")) / pl.col("queries").sum())
    )
    found = {}
    for metric in HEAD_METRICS:
        rows = by_head.filter(pl.col("metric") == metric).drop("metric").rows()
        if rows:
            found[metric] = HeadMap(values=_as_rows(rows))
    return found


def _as_rows(cells: Sequence[tuple[int, int, float]]) -> list[list[float | None]]:
    known = {(layer, head): value for layer, head, value in cells}
    layers, heads = (1 + max(places) for places in zip(*known, strict=True))
    return [[known.get((layer, head)) for head in range(heads)] for layer in range(layers)]
