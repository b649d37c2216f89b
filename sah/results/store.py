"""The output directory of an experiment: its answers, and its result once it is complete."""

import logging
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError, DamagedResults, category
from sah.results.claim import Claim, began_before_requeue, note_job, read_claim
from sah.results.contents import STARTS, described_start, other_content, unidentified_paths
from sah.results.files import (
    append_whole,
    damaged,
    is_present,
    json_lines,
    read_json,
    read_json_lines,
    remove,
    remove_unfinished,
    whole_json_lines,
    write_atomically,
    write_json,
)
from sah.results.identity import as_literals, experiment_of
from sah.results.schema import SCHEMA, LastError, Result, to_document
from sah.results.stored_lines import (
    EXAMPLES,
    MICRO_METRICS,
    PREDICTIONS,
    SCORES,
    Inputs,
    check_inputs,
    check_scores,
    digest,
    parse_prediction,
    prediction_line,
    scores_content,
)
from sah.results.upgrade import early_answer_tokens, upgrade
from sah.types import Prediction, Score

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
OVERRIDES = "overrides.yaml"
RESULTS = "results.json"
ERROR = "error.json"
# With resume=false the old files are kept here until the new result is complete.
PREVIOUS = ".previous"

_FILES = (
    *(CONFIG, OVERRIDES, PREDICTIONS, MICRO_METRICS, STARTS, SCORES, EXAMPLES, RESULTS, ERROR),
)


class WrongDirectory(DamagedResults):
    """A directory holds the result of another experiment than its own."""


def read_result(
    directory: Path, fingerprint: str | None = None, *, with_scores: bool = True
) -> Result | None:
    """Read results.json; None if the experiment is not complete.

    Files of earlier schemas are read too; `Result.schema` tells them apart.

    Args:
        directory: the experiment's.
        fingerprint: the one that the result must have; None for any.
        with_scores: check that it belongs to scores.jsonl.

    Raises:
        DamagedResults: if the file is not a result, or if it or scores.jsonl was edited.
        WrongDirectory: if it belongs to another experiment than `fingerprint`.
    """
    path = directory / RESULTS
    if not is_present(path):
        return None
    document = read_json(path)
    schema = document.get("schema")
    if schema not in range(1, SCHEMA + 1):
        raise DamagedResults(
            f"{path} has schema {schema!r}, this version reads 1 to {SCHEMA}; move its directory "
            "away, or use the version that wrote it"
        )
    if fingerprint is not None and document.get("fingerprint") != fingerprint:
        raise WrongDirectory(
            f"{path} belongs to experiment {document.get('fingerprint')!r}, not to "
            f"{fingerprint!r}; if it was copied there, move it away"
        )
    has_no_length = "answer_tokens" not in document
    if schema == 1:
        document = upgrade(document, directory / CONFIG)
    document["directory"] = directory
    try:
        # The hook is called for `directory` only, which is not JSON.
        result = msgspec.convert(document, Result, dec_hook=lambda _, value: value)
    except msgspec.ValidationError as error:
        raise damaged(path, str(error)) from error
    if has_no_length:
        result = replace(result, answer_tokens=early_answer_tokens(result))
    if with_scores:
        check_scores(result)
    return result


def is_complete(directory: Path, fingerprint: str) -> bool:
    """Whether the directory holds the complete result of this experiment.

    Raises:
        DamagedResults: if results.json is damaged or belongs to another experiment.
    """
    return read_result(directory, fingerprint) is not None


class ResultStore:
    """Writes the files of one experiment, inside `claimed`, which keeps other processes out."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self.predictions: dict[str, Prediction] = {}
        """Stored answers by example id."""
        self.config: dict[str, Any] = {}
        """The resolved experiment; set by `claimed`."""
        self._claim: Claim | None = None

    @contextmanager
    def claimed(self, config: DictConfig, overrides: Sequence[str], resume: bool) -> Iterator[None]:
        """Hold the directory and load its answers, without what an interruption left unfinished.

        Raises:
            Busy: if another process computes this experiment.
            DamagedResults: if files are damaged beyond a torn last line.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with Claim(self.directory) as claim:
            self._claim = claim
            try:
                for name in _FILES:
                    # A sweep writes error.json without the claim.
                    if name != ERROR:
                        remove_unfinished(self.path(name))
                if not resume:
                    # A requeued SLURM job resumes what its own earlier start began.
                    if not began_before_requeue(self.directory):
                        self._put_aside()
                    note_job(self.directory)
                self.load()
                self.config = experiment_of(config)
                resolved = as_literals(OmegaConf.to_container(config, resolve=True))
                write_atomically(self.path(CONFIG), OmegaConf.to_yaml(resolved).encode())
                typed = OmegaConf.to_yaml(OmegaConf.create(list(overrides)))
                write_atomically(self.path(OVERRIDES), typed.encode())
                yield
            finally:
                self._claim = None

    def path(self, name: str) -> Path:
        """Return the path of one of the experiment's files."""
        return self.directory / name

    def result(self) -> Result | None:
        """Return the result if the experiment is complete."""
        return read_result(self.directory, self.fingerprint)

    def append(self, prediction: Prediction) -> None:
        """Append an answer; once this returns, killing the process does not lose it.

        Raises:
            Busy: if the claim was lost; nothing is written then.
            OSError: if the disk refuses, naming the file, which is left unchanged.
        """
        assert self._claim is not None, "append outside `claimed`"
        self._claim.check()
        append_whole(self.path(PREDICTIONS), prediction_line(prediction, self.fingerprint))
        self.predictions[prediction.example_id] = prediction

    def note_start(self, made_by: Mapping[str, Any]) -> None:
        """Record the time, content, code, libraries and device behind the answers that follow.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        self.check_claim()
        now = datetime.now(UTC).isoformat()
        start = {"time": now, **made_by, **described_start(self.config)}
        append_whole(self.path(STARTS), json_lines([start]))

    def notes_on_content(self) -> list[str]:
        """Say what counts by its path only, and which results are of content that has changed."""
        return unidentified_paths(self.config) + other_content(self.directory, self.config)

    def starts(self) -> list[dict[str, Any]]:
        """Return the records of `note_start`, oldest first."""
        records, _, _ = read_json_lines(self.path(STARTS))
        return records

    def check_examples(self, example_ids: Sequence[str]) -> None:
        """Check that every stored answer belongs to an example; note their number in the claim.

        Raises:
            DamagedResults: naming the first answer that does not.
        """
        unknown = self.predictions.keys() - set(example_ids)
        if unknown:
            raise DamagedResults(
                f"{self.path(PREDICTIONS)} answers {min(unknown)!r}, which is not an example of "
                "this experiment: the benchmark's code or data changed since; start afresh with "
                "resume=false"
            )
        assert self._claim is not None, "check_examples outside `claimed`"
        self._claim.note_examples(len(example_ids), len(self.predictions))

    def check_inputs(self, inputs: Mapping[str, Inputs], *, references: bool = True) -> None:
        """Check that stored answers were given to these inputs.

        Args:
            inputs: by example id.
            references: whether the references must be the same too.

        Raises:
            DamagedResults: naming the first answer that was not, and what changed.
        """
        check_inputs(self.path(PREDICTIONS), self.predictions, inputs, references=references)

    def write_examples(self, examples: Sequence[Mapping[str, Any]]) -> None:
        """Write the questions, so that reports can show them beside the answers.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        assert self._claim is not None, "write_examples outside `claimed`"
        self._claim.check()
        write_atomically(self.path(EXAMPLES), json_lines(list(examples)))

    def record_error(self, error: BaseException) -> None:
        """Write error.json with the last error and the number of failures so far.

        Does nothing if the experiment is complete: an interruption after the last write does
        no harm. If error.json cannot be written, that is only logged.
        """
        if self.path(RESULTS).exists():
            return
        text = "".join(traceback.format_exception(error))
        try:
            write_error(self.directory, category(error), type(error).__name__, str(error), text)
        except OSError as failure:
            logger.warning("error.json cannot be written: %s", failure)

    def is_held(self) -> bool:
        """Whether the directory still exists and this process still holds its claim."""
        return self._claim is not None and self._claim.is_held()

    def check_claim(self) -> None:
        """Check that the directory still exists and this process still holds its claim.

        Raises:
            Busy: if not.
        """
        assert self._claim is not None, "check_claim outside `claimed`"
        self._claim.check()

    def complete(self, result: Result, scores: Sequence[Score]) -> Result:
        """Write the scores and, last, results.json, which names them; return it as written.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        assert self._claim is not None, "complete outside `claimed`"
        assert result.fingerprint == self.fingerprint, "a result of another experiment"
        self._claim.check()
        content = scores_content(scores)
        result = replace(result, scores_digest=digest(content))
        write_atomically(self.path(SCORES), content)
        self.path(ERROR).unlink(missing_ok=True)
        # Written last: its existence is what "complete" means to resume.
        write_json(self.path(RESULTS), to_document(result))
        shutil.rmtree(self.path(PREVIOUS), ignore_errors=True)
        return result

    def _put_aside(self) -> None:
        """Move existing files to `.previous`, unless a complete result is already kept there."""
        # Links to nothing too: what is damaged is kept aside as well.
        present = [self.path(name) for name in _FILES if os.path.lexists(self.path(name))]
        aside = self.path(PREVIOUS)
        if not present:
            return
        if self.path(RESULTS) in present:
            # `complete` was killed before it removed `.previous`, which is older than this result.
            shutil.rmtree(aside, ignore_errors=True)
        if aside.exists():
            logger.info("%s: discarding the unfinished answers of an earlier start", self.directory)
            for path in present:
                remove(path)
            return
        aside.mkdir()
        # results.json first: without it the rest is an unfinished experiment, which is harmless.
        for path in sorted(present, key=lambda path: path.name != RESULTS):
            path.rename(aside / path.name)

    def load(self) -> None:
        """Read the stored answers; discard what an interrupted attempt left unfinished."""
        _whole_lines(self.path(STARTS))
        path = self.path(PREDICTIONS)
        self.predictions = {}
        for number, (record, line) in enumerate(_whole_lines(path), start=1):
            prediction = parse_prediction(record, line, self.fingerprint, path, number)
            if prediction.example_id in self.predictions:
                raise DamagedResults(
                    f"{path} answers {prediction.example_id!r} twice (line {number}); "
                    "repair the file, or start afresh with resume=false"
                )
            self.predictions[prediction.example_id] = prediction
        self._drop_metrics_of_unanswered()

    def _drop_metrics_of_unanswered(self) -> None:
        """Keep the records of answered examples; the others will be logged again."""
        path = self.path(MICRO_METRICS)
        if not path.exists():
            return
        known = {None, *self.predictions}

        def kept() -> Iterator[bytes]:
            # One at a time: there may be more than fit into memory.
            for record, line in whole_json_lines(path):
                if record.get("metadata", {}).get("example_id") in known:
                    yield line

        size = sum(len(line) for line in kept())
        if size < path.stat().st_size:
            write_atomically(path, kept())


def _whole_lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Read JSON lines; truncate the file if a killed process left a torn last line."""
    found = list(whole_json_lines(path))
    size = sum(len(line) for _, line in found)
    if is_present(path) and size < path.stat().st_size:
        logger.warning("%s: discarding a torn last line; its example is answered again", path)
        os.truncate(path, size)
    return found


def write_error(directory: Path, kind: str, name: str, message: str, trace: str) -> None:
    """Write error.json, counting the failures before this one."""
    before, owner = read_error(directory), read_claim(directory)
    known = [one.examples for one in (owner, before) if one is not None and one.examples]
    error = LastError(
        category=kind,
        type=name,
        message=message,
        traceback=trace,
        attempt=1 if before is None else before.attempt + 1,
        time=datetime.now(UTC).isoformat(),
        examples=known[0] if known else None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / ERROR, error)


def read_error(directory: Path) -> LastError | None:
    """Read error.json; None if there is none or it cannot be read."""
    path = directory / ERROR
    try:
        return msgspec.convert(read_json(path), LastError)
    except (OSError, DamagedResults, msgspec.ValidationError):
        return None


def require_place(root: Path, key: str = "output_root") -> None:
    """Check that the folder that a key names could be written to, or made; writes nothing.

    Raises:
        ConfigurationError: naming the path and what is in the way.
    """
    nearest = next((path for path in (root, *root.absolute().parents) if path.exists()), root)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "may not be written to" if nearest.is_dir() else "is not a folder"
        raise ConfigurationError(
            f"{key}: cannot write to {str(root)!r} ({nearest} {reason}); choose another with "
            f"{key}=DIR"
        )


def require_writable(root: Path, key: str = "output_root") -> None:
    """Create the folder that a configuration key names, and check that it is writable.

    Raises:
        ConfigurationError: naming the path and the system's reason.
    """
    probe = root / f".write-probe-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        # A process with the same id on another host may be probing too.
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{key}: cannot write to {str(root)!r} ({error.strerror}); choose another with "
            f"{key}=DIR"
        ) from error
