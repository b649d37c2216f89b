"""`sah.results` and `sah.examples`: finished experiments as data frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sah.errors import ConfigurationError
from sah.report.reading.answers import read_examples, read_scored
from sah.report.reading.collect import collect, with_whole
from sah.report.reading.differences import differing_keys
from sah.report.reading.order import in_order
from sah.report.reading.select import NAMES, Conditions, parse_conditions, select, shown_value
from sah.results.schema import Result
from sah.results.stored_lines import EXAMPLES, PREDICTIONS

Roots = str | Path | Sequence[str | Path]
Where = str | Sequence[str] | Mapping[str, Any] | None

_NAMES = ("model", "attention", "benchmark", "subset", "protocol")
_NUMBERS: dict[str, Any] = {
    "score": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    **{
        f"{name}{suffix}": pl.Float64
        for name in (
            *("density", "rows_read", "resident", "output_error", "recall"),
            *("keys_read", "answer_tokens"),
        )
        for suffix in ("", "_stderr")
    },
    "prompt_tokens": pl.Float64,
    "thought_tokens": pl.Float64,
    "unfinished_thoughts": pl.Int64,
    "truncated": pl.Int64,
}
_SECONDS = ("load_seconds", "prefill_seconds", "prefill_seconds_saved", "decode_seconds")


def results(root: Roots = "outputs", where: Where = None, *, hashes: bool = False) -> pl.DataFrame:
    """Read the results below a folder: one row an experiment, in the order of `sah report`.

        frame = sah.results("outputs", where={"benchmark": "ruler", "seed": [0, 1]})

    Columns: the names (model, attention, benchmark, subset, protocol), each setting in which the
    experiments differ beyond their names (such as `seed` or
    `sparse_attention.maskers.quest.fraction`), score and the other means of results.json with
    their standard errors, seconds, the device, and the directory. What was not measured is null.

    Damaged results and copies are left out with a warning in the log, as in `sah report`.

    Args:
        root: an output root, a folder in one, the directory of an experiment, or several of them.
        where: only these results: {"model": ["llama", "mistral"]} or "model=llama,mistral"; any
            key of the configuration or the end of one; * and ? are wildcards.
        hashes: also the settings that are digests of files and commits, and the fingerprint.

    Raises:
        ConfigurationError: if there are no results, or no result has such a key.
        DamagedResults: if `root` is the directory of a damaged result.
    """
    found = in_order(_chosen(root, where))
    settings = _settings(found, hashes)
    return pl.DataFrame(
        {
            **{name: pl.Series(_named(found, name), dtype=pl.String) for name in _NAMES},
            **settings,
            **{
                name: pl.Series(_values(found, name), dtype=kind) for name, kind in _NUMBERS.items()
            },
            **_dense_agreement(found),
            **{
                name: pl.Series([getattr(one.timing, name) for one in found], dtype=pl.Float64)
                for name in _SECONDS
            },
            "device": pl.Series([one.provenance.device for one in found], dtype=pl.String),
            **(
                {"fingerprint": pl.Series(_values(found, "fingerprint"), dtype=pl.String)}
                if hashes
                else {}
            ),
            "directory": pl.Series([str(one.directory) for one in found], dtype=pl.String),
        }
    )


def examples(root: Roots = "outputs", where: Where = None) -> pl.DataFrame:
    """Read the answers of all results below a folder: one row an answer.

    Columns: the names and the settings in which the experiments differ, as in `sah.results`; then
    example_id, task, question, text (the answer), references, score, finish_reason, the lengths
    (context_tokens, question_tokens, new_tokens, token_limit), density, rows_read, keys_read,
    resident, output_error, recall and decode_seconds, an excerpt of the context, and the directory.
    Answers about one context have equal `context_hash`; they are not independent.

    Args:
        root: as in `sah.results`.
        where: as in `sah.results`.

    Raises:
        ConfigurationError: if there are no results, or no result has such a key.
        DamagedResults: if `root` is the directory of a damaged result.
    """
    found = with_whole(in_order(_chosen(root, where)), {PREDICTIONS, EXAMPLES}, _roots(root))
    of_result = pl.DataFrame(
        {
            "result": pl.Series(range(len(found)), dtype=pl.Int32),
            **{name: pl.Series(_named(found, name), dtype=pl.String) for name in _NAMES},
            **_settings(found, hashes=False),
            "directory": pl.Series([str(one.directory) for one in found], dtype=pl.String),
        }
    )
    keys = ["result", "example_id"]
    asked = read_examples(found).rename({"context": "excerpt"})
    answers = read_scored(found).join(asked, on=keys, how="left", maintain_order="left")
    own = [name for name in of_result.columns if name not in ("result", "directory")]
    return answers.join(of_result, on="result", how="left", maintain_order="left").select(
        *own,
        *("example_id", "task", "question", "text", "references", "score", "finish_reason"),
        *("context_tokens", "question_tokens", "new_tokens", "token_limit"),
        *("density", "rows_read", "keys_read", "resident", "output_error", "recall"),
        "decode_seconds",
        pl.col("excerpt").alias("context"),
        pl.col("context").alias("context_hash"),
        "directory",
    )


def _roots(root: Roots) -> list[Path]:
    several = [root] if isinstance(root, str | Path) else root
    return [Path(one) for one in several]


def _chosen(root: Roots, where: Where) -> list[Result]:
    found = collect(*_roots(root))
    chosen = select(found, _conditions(where))
    if not chosen:
        raise ConfigurationError(
            f"none of {len(found)} results below {root!r} matches where={where!r}; leave a "
            "condition out, or see `sah report` for what is there"
        )
    return chosen


def _conditions(where: Where) -> Conditions:
    if where is None:
        return {}
    if isinstance(where, str):
        return parse_conditions([where])
    if not isinstance(where, Mapping):
        return parse_conditions(where)
    return {
        key: [shown_value(one) for one in (value if _is_several(value) else [value])]
        for key, value in where.items()
    }


def _is_several(value: Any) -> bool:
    return isinstance(value, Sequence | set | frozenset) and not isinstance(value, str)


def _values(found: Sequence[Result], name: str) -> list[Any]:
    return [getattr(one, name) for one in found]


def _named(found: Sequence[Result], name: str) -> list[str]:
    return [one.subset_name if name == "subset" else getattr(one, name) for one in found]


def _settings(found: Sequence[Result], hashes: bool) -> dict[str, pl.Series]:
    """Return a column for each setting in which the results differ, typed by its values."""
    keys = [key for key in differing_keys(found) if key not in NAMES]
    if not hashes:
        keys = [key for key in keys if not _is_content(found, key)]
    return {key: _typed([one.settings.get(key) for one in found]) for key in keys}


def _is_content(found: Sequence[Result], key: str) -> bool:
    """Whether any result has a digest, a commit or a version as the value of a setting."""
    path = key.split(".")
    for result in found:
        part: Any = result.config
        for name in path[:-1]:
            part = part.get(name) if isinstance(part, Mapping) else None
        content = part.get("content") if isinstance(part, Mapping) else None
        if "packages" in path or (isinstance(content, Mapping) and path[-1] in content):
            return True
    return False


def _typed(values: Sequence[Any]) -> pl.Series:
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return pl.Series(values, dtype=pl.Boolean)
    if any(isinstance(value, bool | str) for value in known):
        return pl.Series([None if v is None else shown_value(v) for v in values], dtype=pl.String)
    if all(isinstance(value, int) for value in known):
        return pl.Series(values, dtype=pl.Int64)
    return pl.Series([None if v is None else float(v) for v in values], dtype=pl.Float64)


def _dense_agreement(found: Sequence[Result]) -> dict[str, pl.Series]:
    """Return the columns of teacher forcing, if any result has been measured under it."""
    measured = [one.dense_agreement for one in found]
    if not any(measured):
        return {}
    return {
        name: pl.Series(
            [None if one is None else getattr(one, name) for one in measured], dtype=pl.Float64
        )
        for name in ("kl", "kl_stderr", "top_agreement", "top_agreement_stderr")
    }
