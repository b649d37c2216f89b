"""Scores by the depth of the answer in its context, and by the length of the context."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from sah.report.figures.series import Point, points, task_panel
from sah.report.reading.answers import read_examples, read_scored
from sah.report.reading.order import natural
from sah.results.schema import Result

_LENGTH = "benchmark.context_tokens"
# As `sah.results.excerpts` marks what it leaves out of a context.
_OMITTED = re.compile(r"\n\[… ([\d,]+) characters …\]\n")
# Answers per length from which depths are divided into tenths, not fifths.
_MANY = 30


@dataclass(frozen=True, kw_only=True)
class NeedleMap:
    """Mean scores of one method on one task, by depth and length; both in order."""

    title: str
    depths: Sequence[str]
    lengths: Sequence[str]
    scores: Mapping[tuple[str, str], float]
    """By depth and length; without those that no answer has."""


def needle_maps(results: Sequence[Result]) -> list[NeedleMap]:
    """Return a map per method and task whose contexts all hold the expected answer.

    The depth is that of the answer's first mention, as a share of the characters, unless groups of
    the benchmark say it ("depth 25"). The length is `benchmark.context_tokens`, a group
    ("length 4k"), or the measured length up to the next power of two.
    """
    return [one for point in points(results, ("seed", _LENGTH)) for one in _needle_maps(point)]


def depth_of(context: str, answer: str) -> float | None:
    """Return where a text first mentions the answer, in [0, 1); None if it does not.

    Args:
        context: an excerpt, as in examples.jsonl: what it omits counts.
        answer: the text to find.
    """
    found, length = None, 0
    for number, piece in enumerate(_OMITTED.split(context)):
        if number % 2:
            length += int(piece.replace(",", ""))
            continue
        if found is None and answer in piece:
            found = length + piece.index(answer)
        length += len(piece)
    return None if found is None or not answer else found / length


def _needle_maps(point: Point) -> Iterator[NeedleMap]:
    """Yield the maps of one method, a task at a time."""
    keys = ["result", "example_id"]
    scored = read_scored(point.results).drop_nulls("score")
    scored = scored.select(*keys, "task", "score", "groups", "context_tokens")
    asked = read_examples(point.results).select(*keys, "context", "references")
    joined = scored.join(asked, on=keys, how="left", maintain_order="left")
    by_task = joined.partition_by("task", maintain_order=True, as_dict=True)
    for (task,), of_task in by_task.items():
        answers = _placed(of_task, point.results)
        if answers is None or answers["depth"].n_unique() < 2:
            continue
        panel = point.panel if len(by_task) == 1 else task_panel(point, str(task))
        cells = answers.group_by("depth", "length").agg(pl.col("score").mean())
        yield NeedleMap(
            title=f"{point.name}\n{panel}",
            depths=sorted(answers["depth"].unique(), key=natural),
            lengths=sorted(answers["length"].unique(), key=natural),
            scores={(depth, length): score for depth, length, score in cells.iter_rows()},
        )


def _placed(answers: pl.DataFrame, results: Sequence[Result]) -> pl.DataFrame | None:
    """Return depth, length and score of every answer; None if one of them has no depth."""
    rows = answers.select("result", "groups", "context_tokens", "context", "references").rows()
    lengths = [
        _named(groups, "length")
        or str(results[number].settings.get(_LENGTH) or _next_power(tokens))
        for number, groups, tokens, _, _ in rows
    ]
    depths = [_named(groups, "depth") for _, groups, _, _, _ in rows]
    if not all(depths):
        bins = 10 if len(rows) / len(set(lengths)) >= _MANY else 5
        # Of several references, no depth is that of the answer.
        depths = [
            _bin(depth_of(context or "", references[0]), bins)
            if len(references or ()) == 1
            else None
            for _, _, _, context, references in rows
        ]
    if not all(depths):
        return None
    return answers.select("score", depth=pl.Series(depths), length=pl.Series(lengths))


def _named(groups: Sequence[str] | None, word: str) -> str | None:
    """Return the value of the first group that begins with a word: 25 of "depth 25"."""
    found = (group.partition(" ") for group in groups or ())
    return next((value for name, _, value in found if name == word and value), None)


def _bin(depth: float | None, bins: int) -> str | None:
    if depth is None:
        return None
    number = int(depth * bins)
    return f"{100 * number // bins}–{100 * (number + 1) // bins} %"


def _next_power(tokens: int | None) -> int:
    return 1 << max(0, (tokens or 1) - 1).bit_length()
