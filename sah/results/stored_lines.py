"""Lines of predictions.jsonl and scores.jsonl: what they belong to is written and checked."""

import hashlib
import json
import math
import statistics
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import orjson

from sah.errors import DamagedResults
from sah.results.files import damaged, is_present, json_lines, read_file, whole_json_lines
from sah.results.schema import Result
from sah.types import Example, Prediction, Score

PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"
EXAMPLES = "examples.jsonl"
MICRO_METRICS = "micro_metrics.jsonl"

# Earlier results name no digest, and their lines have no checksum.
_CHECKED_SCHEMA = 3

_CHECKSUM = b',"checksum":"'
_FIELDS = {"fingerprint", "checksum", *(one.name for one in fields(Prediction))}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an answer, or its score, depends on besides the configuration."""

    input_hash: str
    """Hash of the prompt's token ids."""
    references_hash: str
    token_limit: int | None
    """Maximum number of new tokens; None for a continuation."""


def references_hash(example: Example) -> str:
    """Hash what a scorer reads of an example: its task, its references and its extras."""
    read = [example.task, example.references, example.extras]
    try:
        text = json.dumps(read, sort_keys=True, default=_sorted)
    except TypeError:
        # Keys that are not in JSON, or of several types.
        text = repr(read)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def with_references(scores: Sequence[Score], examples: Sequence[Example]) -> list[Score]:
    """Note in each score which references it was computed with; both in the same order."""
    return [
        replace(score, references_hash=references_hash(example))
        for score, example in zip(scores, examples, strict=True)
    ]


def _sorted(value: Any) -> Any:
    # The order of a set differs between processes.
    return sorted(map(repr, value)) if isinstance(value, set | frozenset) else repr(value)


# -- predictions.jsonl ---------------------------------------------------------------------


def prediction_line(prediction: Prediction, fingerprint: str) -> bytes:
    """Return the line of an answer, with its experiment and a checksum of all that precedes it."""
    content = orjson.dumps({"fingerprint": fingerprint, **vars(prediction)}).removesuffix(b"}")
    return _with_checksum(content)


def _with_checksum(content: bytes) -> bytes:
    return content + _CHECKSUM + b'%08x"}\n' % zlib.crc32(content)


def parse_prediction(
    record: Mapping[str, Any], line: bytes, fingerprint: str, path: Path, number: int
) -> Prediction:
    """Read the line of an answer, as the experiment of this fingerprint wrote it.

    Args:
        record: the parsed line.
        line: the line itself.
        fingerprint: of the experiment.
        path: the file, for the message.
        number: of the line.

    Raises:
        DamagedResults: naming the line and what is wrong with it.
    """
    problem = _problem(record, line, fingerprint)
    if problem is None and not record.keys() <= _FIELDS:
        unknown = sorted(record.keys() - _FIELDS)
        problem = f"has the unknown fields {unknown}: another version wrote it"
    if problem is None:
        try:
            return msgspec.convert(record, Prediction)
        except msgspec.ValidationError as error:
            problem = f"has a wrong value: {error}"
    raise DamagedResults(
        f"{path} line {number} {problem}. Nothing was changed; restore the line, or start afresh "
        "with resume=false (the directory is kept aside)"
    )


def _problem(record: Mapping[str, Any], line: bytes, fingerprint: str) -> str | None:
    """Say why a line is not one that this experiment wrote; None if it is."""
    if record.get("checksum") is None:
        return "has no checksum: another version wrote it, or it was edited"
    content, _, _ = line.rpartition(_CHECKSUM)
    # Nothing may follow the checksum: of two values of a key, the second would count.
    if line != _with_checksum(content):
        return "was edited: its checksum is not that of its content"
    if record.get("fingerprint") != fingerprint:
        return f"belongs to experiment {record.get('fingerprint')!r}, not to {fingerprint!r}"
    return None


def check_inputs(
    path: Path,
    answers: Mapping[str, Prediction],
    inputs: Mapping[str, Inputs],
    *,
    references: bool,
) -> None:
    """Check that answers were given to these inputs; see `ResultStore.check_inputs`."""
    for example_id, now in inputs.items():
        answered = answers.get(example_id)
        if answered is None:
            continue
        if answered.input_hash != now.input_hash:
            problem = "with another prompt: its tokens differ now. The data, the tokenizer or its "
            problem += "chat template"
        elif answered.token_limit != now.token_limit:
            problem = f"with at most {answered.token_limit} tokens, but the limit is "
            problem += f"{now.token_limit} now. The benchmark's data or code"
        elif references and answered.references_hash != now.references_hash:
            problem = "for other references: those of the example differ now. The benchmark's data "
            problem += "or code"
        else:
            continue
        raise DamagedResults(
            f"{path} answers {example_id!r} {problem} changed since; restore them, or start afresh "
            "with resume=false"
        )


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What reports read of an answer; earlier versions did not write all of it."""

    example_id: str
    text: str
    input_hash: str
    context_hash: str | None = None
    finish_reason: str | None = None
    context_tokens: int | None = None
    question_tokens: int | None = None
    new_tokens: int | None = None
    density: float | None = None
    keys_read: float | None = None
    references_hash: str | None = None
    token_limit: int | None = None


def check_predictions(result: Result) -> None:
    """Check that a complete experiment's answers are those that it gave, one for each score.

    Lines of earlier versions have no checksum; their values must have the right types.

    Raises:
        DamagedResults: naming the file, the line and what is wrong with it.
    """
    path = result.directory / PREDICTIONS
    size, answered = 0, set()
    for number, (record, line) in enumerate(whole_json_lines(path), start=1):
        size += len(line)
        problem = None
        if "checksum" in record or result.schema >= _CHECKED_SCHEMA:
            problem = _problem(record, line, result.fingerprint)
        if problem is None:
            try:
                identifier = msgspec.convert(record, _Answer).example_id
            except msgspec.ValidationError as error:
                problem = f"has a wrong value: {error}"
            else:
                if identifier in answered:
                    problem = f"answers {identifier!r} twice"
                answered.add(identifier)
        if problem is not None:
            raise damaged(path, f"line {number} {problem}")
    if not answered:
        raise damaged(path, "it is missing or empty")
    if size < path.stat().st_size:
        raise damaged(path, "its last line is torn")
    for score in parse_scores(result.directory / SCORES):
        if score.example_id not in answered:
            raise damaged(path, f"it has no answer to {score.example_id!r}, which has a score")


# -- scores.jsonl --------------------------------------------------------------------------


def scores_content(scores: Sequence[Score]) -> bytes:
    """Return the content of scores.jsonl."""
    return json_lines(list(scores))


def digest(content: bytes) -> str:
    """Return the digest of scores.jsonl that results.json names."""
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def check_scores(result: Result) -> None:
    """Check that scores.jsonl is the one that results.json was made of.

    Results of earlier versions do not name it, and are not checked.

    Raises:
        DamagedResults: naming the file, what is wrong with it, and the way out.
    """
    if result.schema < _CHECKED_SCHEMA:
        return
    path = result.directory / SCORES
    way_out = f"`sah rescore {result.directory}` scores the answers again"
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise DamagedResults(f"{path} is missing; {way_out}") from None
    if digest(content) != result.scores_digest:
        raise DamagedResults(
            f"{path} is not the one that results.json was made of: `sah rescore` was killed "
            f"between the two files, or one of them was edited; {way_out}"
        )
    scores = parse_scores(path, content)
    if not _agree(result, scores):
        raise DamagedResults(
            f"{result.directory / 'results.json'} was edited: its scores or numbers of answers "
            f"are not those of scores.jsonl; {way_out}"
        )


def parse_scores(path: Path, content: bytes | None = None) -> list[Score]:
    """Read scores.jsonl.

    Raises:
        DamagedResults: naming the first line that is not a score, or that repeats an example.
    """
    try:
        lines = (read_file(path) if content is None else content).split(b"\n")
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    if lines.pop():
        raise damaged(path, "its last line is torn")
    scores: dict[str, Score] = {}
    for number, line in enumerate(lines, start=1):
        try:
            score = _SCORE.decode(line)
        except ValueError as error:
            raise damaged(path, f"line {number} is not a score: {error}") from error
        if score.example_id in scores:
            raise damaged(path, f"line {number} scores {score.example_id!r} twice")
        scores[score.example_id] = score
    return list(scores.values())


_SCORE = msgspec.json.Decoder(Score)


def _agree(result: Result, scores: Sequence[Score]) -> bool:
    """Whether the means of results.json are those of these scores."""
    by_task: dict[str, list[float | None]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score.score)
    if by_task.keys() != result.tasks.keys() or result.n != len(scores):
        return False
    means = {task: _mean(values) for task, values in by_task.items()}
    return _equal(result.score, _mean(list(means.values()))) and all(
        task.n == len(by_task[name]) and _equal(task.score, means[name])
        for name, task in result.tasks.items()
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if one of the values is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if values and len(known) == len(values) else None


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=1e-9)


# -- all that reports read -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A line of examples.jsonl."""

    example_id: str
    context: str | None = None
    question: str | None = None
    answer_prefix: str | None = None
    references: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A line of micro_metrics.jsonl."""

    metric: str
    value: Any = None
    heads: Sequence[float | None] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


_LINES: dict[str, msgspec.json.Decoder[Any]] = {
    EXAMPLES: msgspec.json.Decoder(_Asked),
    MICRO_METRICS: msgspec.json.Decoder(_Record),
}


def check_files(result: Result, names: Collection[str]) -> None:
    """Check the files that are about to be read of a result.

    Raises:
        DamagedResults: naming the file, the line and what is wrong with it.
    """
    if PREDICTIONS in names:
        check_predictions(result)
    for name, decoder in _LINES.items():
        path = result.directory / name
        # Without metric logging there are no micro metrics.
        if name not in names or not is_present(path):
            continue
        content = read_file(path)
        try:
            is_whole = len(decoder.decode_lines(content)) == content.count(b"\n")
        except ValueError:
            is_whole = False
        if not is_whole or (content and not content.endswith(b"\n")):
            raise damaged(path, _first_problem(content, decoder))


def _first_problem(content: bytes, decoder: msgspec.json.Decoder[Any]) -> str:
    *lines, _ = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            decoder.decode(line)
        except ValueError as error:
            return f"line {number} is not one that was written: {error}"
    return "its last line is torn"
