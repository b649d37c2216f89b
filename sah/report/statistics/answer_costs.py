"""Answer lengths and keys read of a method and its baseline, on the answers that are paired.

Sparse decoding can make answers longer (arXiv:2601.03043), so that a method of half the density may
read as many keys in total.
"""

from dataclasses import dataclass

import polars as pl

from sah.report.statistics.mean_difference import (
    Matrix,
    cluster_sums,
    mean_difference,
    mean_of_tasks,
)

LONGER = 1.25
"""Answers are longer if their mean length is at least this multiple of the baseline's, and the
increase is significant at LEVEL."""
LEVEL = 0.05
AT_LIMIT = 0.1
"""Lengths are cut if more than this share of a side's answers end at their token limit."""


@dataclass(frozen=True, kw_only=True)
class AnswerCosts:
    """What a method and its baseline spend on the same questions.

    Means over tasks of the means over answers, like the score; None if a pair lacks the value, as
    answers of early versions do.
    """

    tokens: float | None
    """Length of an answer."""
    baseline_tokens: float | None
    p_value: float | None
    """Of equal mean lengths, by the test of the scores; None with fewer than two contexts in a
    task."""
    keys_read: float | None
    baseline_keys_read: float | None
    density: float | None
    baseline_density: float | None
    at_limit: float
    """Share of the answers that end at their token limit; the larger one of both sides."""

    @property
    def length_ratio(self) -> float | None:
        """Answer length as a multiple of the baseline's."""
        return _ratio(self.tokens, self.baseline_tokens)

    @property
    def keys_ratio(self) -> float | None:
        """Keys read as a multiple of the baseline's."""
        return _ratio(self.keys_read, self.baseline_keys_read)

    @property
    def is_longer(self) -> bool:
        """Whether the answers are longer than the baseline's by more than chance."""
        ratio, p_value = self.length_ratio, self.p_value
        return ratio is not None and ratio >= LONGER and p_value is not None and p_value < LEVEL

    @property
    def is_cut(self) -> bool:
        """Whether many answers end at their token limit, so that longer ones would not show."""
        return self.at_limit > AT_LIMIT


def answer_costs(frame: pl.DataFrame) -> AnswerCosts:
    """Compare what the answers of some pairs cost.

    Args:
        frame: as in `Pairs`, at least one row.
    """
    ended = frame.select(
        pl.col("finish_reason", "finish_reason_baseline").eq("length").fill_null(value=False)
    )
    return AnswerCosts(
        **_both(frame, "new_tokens", "tokens"),
        p_value=_length_p_value(frame),
        **_both(frame, "keys_read", "keys_read"),
        **_both(frame, "density", "density"),
        at_limit=max(ended.sum().row(0)) / len(frame),
    )


def _both(frame: pl.DataFrame, column: str, name: str) -> dict[str, float | None]:
    return {
        name: _mean(frame, column),
        f"baseline_{name}": _mean(frame, f"{column}_baseline"),
    }


def _mean(frame: pl.DataFrame, column: str) -> float | None:
    values = frame[column]
    if values.null_count():
        return None
    return mean_of_tasks(*_sums(frame, values.to_numpy()))


def _length_p_value(frame: pl.DataFrame) -> float | None:
    lengths = frame.select("new_tokens", "new_tokens_baseline")
    if sum(lengths.null_count().row(0)):
        return None
    # As a share of the longest answer, so that differences are in [-1, 1] like those of scores.
    longest = max(1, *lengths.max().row(0))
    differences = (lengths["new_tokens"] - lengths["new_tokens_baseline"]).to_numpy() / longest
    found = mean_difference(*_sums(frame, differences))
    return None if found is None else found.p_value()


def _sums(frame: pl.DataFrame, values: Matrix) -> tuple[Matrix, Matrix]:
    return cluster_sums(values, frame["context"].to_list(), frame["task"].to_list())


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
