"""The answers of many experiments in one frame, read in bulk."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sah.report.reading.collect import Run
from sah.results.store import EXAMPLES, MICRO_METRICS, PREDICTIONS, SCORES

_PREDICTION = {
    "example_id": pl.String,
    "text": pl.String,
    "input_hash": pl.String,
    "context_hash": pl.String,
    "finish_reason": pl.String,
    "context_tokens": pl.Int64,
    "question_tokens": pl.Int64,
    "new_tokens": pl.Int64,
    "density": pl.Float64,
}
_SCORE = {"example_id": pl.String, "task": pl.String, "score": pl.Float64}
_EXAMPLE = {
    "example_id": pl.String,
    "context": pl.String,
    "question": pl.String,
    "answer_prefix": pl.String,
    "references": pl.List(pl.String),
}
_RECORD = {
    "metric": pl.String,
    "value": pl.Float64,
    "metadata": pl.Struct({"example_id": pl.String, "layer_idx": pl.Int64, "step": pl.Int64}),
}


def read_scored(runs: Sequence[Run]) -> pl.DataFrame:
    """Every scored answer: `run` (number in `runs`), task, score, hashes and text.

    A context without a hash, as older versions wrote them, is one of its own.
    """
    scores = _read_lines(runs, SCORES, _SCORE)
    predictions = _read_lines(runs, PREDICTIONS, _PREDICTION)
    joined = scores.join(predictions, on=["run", "example_id"], how="left", maintain_order="left")
    own = pl.format("example {} {}", "run", "example_id")
    return joined.with_columns(context=pl.coalesce("context_hash", own))


def read_asked(runs: Sequence[Run]) -> pl.DataFrame:
    """What the examples asked: `run`, example_id, context (an excerpt), question, references."""
    return _read_lines(runs, EXAMPLES, _EXAMPLE)


def read_micro_metrics(run: Run) -> pl.DataFrame:
    """The micro metrics of one experiment: metric, value, example_id, layer_idx, step.

    Metrics whose value is no number are left out.
    """
    records = _read_lines([run], MICRO_METRICS, _RECORD, tolerant=True)
    return records.drop_nulls("value").unnest("metadata")


def _read_lines(
    runs: Sequence[Run],
    name: str,
    schema: Mapping[str, Any],
    *,
    tolerant: bool = False,
) -> pl.DataFrame:
    """Parse one file of every run at once; fields that a line lacks are null."""
    contents = [_content(run.directory / name) for run in runs]
    frame = pl.read_ndjson(
        io.BytesIO(b"".join(contents)), schema=dict(schema), ignore_errors=tolerant
    )
    counts = [content.count(b"\n") for content in contents]
    numbers = pl.Series("run", range(len(runs)), dtype=pl.Int32)
    return frame.with_columns(run=numbers.repeat_by(pl.Series(counts)).list.explode())


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
