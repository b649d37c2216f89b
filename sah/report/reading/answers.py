"""The answers of many experiments in one data frame."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sah.results.schema import Result
from sah.results.stored_lines import EXAMPLES, MICRO_METRICS, PREDICTIONS, SCORES

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
    "rows_read": pl.Float64,
    "keys_read": pl.Float64,
    "resident": pl.Float64,
    "output_error": pl.Float64,
    "recall": pl.Float64,
    "decode_seconds": pl.Float64,
    "token_limit": pl.Int64,
    "references_hash": pl.String,
}
_SCORE = {
    "example_id": pl.String,
    "task": pl.String,
    "score": pl.Float64,
    "references_hash": pl.String,
    "groups": pl.List(pl.String),
}
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
    "metadata": pl.Struct(
        {
            "example_id": pl.String,
            "layer_idx": pl.Int64,
            "step": pl.Int64,
            "queries": pl.Int64,
        }
    ),
}


def read_scored(results: Sequence[Result]) -> pl.DataFrame:
    """Read every scored answer.

    Returns:
        Columns `result` (index into `results`), task, score, groups, hashes, text, counts and
        densities. A context without a hash, as early versions wrote them, counts as distinct.
    """
    scores = _read_lines(results, SCORES, _SCORE)
    predictions = _read_lines(results, PREDICTIONS, _PREDICTION)
    keys = ["result", "example_id"]
    joined = scores.join(predictions, on=keys, how="left", maintain_order="left")
    own = pl.format("example {} {}", *keys)
    return joined.with_columns(
        context=pl.coalesce("context_hash", own),
        # Rescoring may use other references than the answer was given for.
        references_hash=pl.coalesce("references_hash", "references_hash_right"),
        # Schema 1 called a continuation forced.
        finish_reason=pl.col("finish_reason").replace("forced", "given"),
    )


def read_examples(results: Sequence[Result]) -> pl.DataFrame:
    """Read the examples: `result`, example_id, context (an excerpt), question, references."""
    return _read_lines(results, EXAMPLES, _EXAMPLE)


def read_micro_metrics(result: Result, *, per_head: bool = False) -> pl.DataFrame:
    """Read one experiment's micro metrics: metric, value, example_id, layer_idx, step, queries.

    With `per_head` also `heads`, a list of values: null where the record has none.

    Metrics whose value is not a number are left out. Records of early versions, which do not say
    how many queries their value is a mean of, count as one query.
    """
    schema = _RECORD | ({"heads": pl.List(pl.Float64)} if per_head else {})
    records = _read_lines([result], MICRO_METRICS, schema, tolerant=True)
    found = records.drop_nulls("value").unnest("metadata")
    return found.with_columns(pl.col("queries").fill_null(1))


def _read_lines(
    results: Sequence[Result],
    name: str,
    schema: Mapping[str, Any],
    *,
    tolerant: bool = False,
) -> pl.DataFrame:
    """Parse one file of every result in a single pass; fields that a line lacks are null."""
    contents = [_content(result.directory / name) for result in results]
    frame = pl.read_ndjson(
        io.BytesIO(b"".join(contents)), schema=dict(schema), ignore_errors=tolerant
    )
    counts = [content.count(b"\n") for content in contents]
    numbers = pl.Series("result", range(len(results)), dtype=pl.Int32)
    return frame.with_columns(result=numbers.repeat_by(pl.Series(counts)).list.explode())


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
