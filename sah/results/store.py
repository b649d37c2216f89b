"""The output directory of one experiment: what is answered, and whether it is complete."""

import dataclasses
import logging
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError, DamagedResults, category
from sah.results.claim import Claim
from sah.results.files import (
    append_whole,
    json_lines,
    read_json,
    read_json_lines,
    remove_unfinished,
    whole_json_lines,
    write_atomically,
    write_json,
)
from sah.results.identity import experiment_of
from sah.types import Prediction, Score

logger = logging.getLogger(__name__)

SCHEMA = 1

CONFIG = "config.yaml"
OVERRIDES = "overrides.yaml"
PREDICTIONS = "predictions.jsonl"
MICRO_METRICS = "micro_metrics.jsonl"
STARTS = "starts.jsonl"
SCORES = "scores.jsonl"
EXAMPLES = "examples.jsonl"
RESULTS = "results.json"
ERROR = "error.json"
# With resume=false, the old files wait here until the new result is complete.
PREVIOUS = ".previous"

_FILES = (
    *(CONFIG, OVERRIDES, PREDICTIONS, MICRO_METRICS, STARTS, SCORES, EXAMPLES, RESULTS, ERROR),
)


def read_results(directory: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Read results.json; None if the experiment is not complete.

    Raises:
        DamagedResults: if the file is not one this version wrote, or is the result of
            another experiment than `fingerprint` names.
    """
    path = directory / RESULTS
    if not path.is_file():
        return None
    results = read_json(path)
    if results.get("schema") != SCHEMA:
        raise DamagedResults(
            f"{path} has schema {results.get('schema')!r}, this version reads {SCHEMA}; move its "
            "directory away, or use the version that wrote it"
        )
    if fingerprint is not None and results.get("fingerprint") != fingerprint:
        raise DamagedResults(
            f"{path} belongs to experiment {results.get('fingerprint')!r}, not to {fingerprint!r}; "
            "was it copied there? Move it away"
        )
    return results


def is_complete(directory: Path, fingerprint: str) -> bool:
    """Whether the experiment is finished: results.json is there, and is its own."""
    return read_results(directory, fingerprint) is not None


class ResultStore:
    """Writes one experiment's files. Use inside `claimed`, which holds off other processes."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self.directory = directory
        self.fingerprint = fingerprint
        self.predictions: dict[str, Prediction] = {}
        """What is answered, by example id."""
        self.micro_metric_records = 0
        """Micro metrics on disk, all of answered examples."""
        self._claim: Claim | None = None
        self._config: dict[str, Any] = {}

    @contextmanager
    def claimed(self, config: DictConfig, overrides: Sequence[str], resume: bool) -> Iterator[None]:
        """Hold the directory, with what it has read in and put in order.

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
                    self._put_aside()
                self.load()
                self._config = experiment_of(config)
                resolved = OmegaConf.to_yaml(config, resolve=True)
                write_atomically(self.path(CONFIG), resolved.encode())
                typed = OmegaConf.to_yaml(OmegaConf.create(list(overrides)))
                write_atomically(self.path(OVERRIDES), typed.encode())
                yield
            finally:
                self._claim = None

    def path(self, name: str) -> Path:
        """Where one of the experiment's files lies."""
        return self.directory / name

    def results(self) -> dict[str, Any] | None:
        """The results if the experiment is complete."""
        return read_results(self.directory, self.fingerprint)

    def append(self, prediction: Prediction) -> None:
        """Add an answer: on its way to the disk when this returns, whatever kills the process.

        Raises:
            Busy: if the claim was lost; nothing is written then.
            OSError: if the disk does not take it, naming the file; it is as it was then.
        """
        assert self._claim is not None, "append outside `claimed`"
        self._claim.check()
        append_whole(self.path(PREDICTIONS), json_lines([prediction]))
        self.predictions[prediction.example_id] = prediction

    def note_start(self, made_by: Mapping[str, Any]) -> None:
        """Keep what makes the answers from now on: code, libraries, device.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        self.check_claim()
        append_whole(self.path(STARTS), json_lines([made_by]))

    def starts(self) -> list[dict[str, Any]]:
        """What was noted at each start that had something left to answer, the first one first."""
        records, _, _ = read_json_lines(self.path(STARTS))
        return records

    def check_examples(self, example_ids: Sequence[str]) -> None:
        """Check that every stored answer is to an example; tell others how many there are.

        Raises:
            DamagedResults: naming the first that is not.
        """
        unknown = self.predictions.keys() - set(example_ids)
        if unknown:
            raise DamagedResults(
                f"{self.path(PREDICTIONS)} answers {min(unknown)!r}, which is no example of this "
                "experiment: the benchmark's code or data changed since; start afresh with "
                "resume=false"
            )
        assert self._claim is not None, "check_examples outside `claimed`"
        self._claim.note_examples(len(example_ids))

    def check_inputs(self, input_hashes: Mapping[str, str]) -> None:
        """Check that stored answers are to these inputs, by example id.

        Raises:
            DamagedResults: naming the first that is not.
        """
        for example_id, input_hash in input_hashes.items():
            answered = self.predictions.get(example_id)
            if answered is not None and answered.input_hash != input_hash:
                raise DamagedResults(
                    f"{self.path(PREDICTIONS)} answers {example_id!r} as it was: its prompt has "
                    "other tokens now. The data, the tokenizer or its chat template changed "
                    "since; bring them back, or start afresh with resume=false"
                )

    def write_examples(self, examples: Sequence[Mapping[str, Any]]) -> None:
        """Write what was asked, so that an answer can be read beside its question.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        assert self._claim is not None, "write_examples outside `claimed`"
        self._claim.check()
        write_atomically(self.path(EXAMPLES), json_lines(list(examples)))

    def record_error(self, error: BaseException) -> None:
        """Write error.json: what happened last, how often something happened, where.

        Not beside complete results: an interruption after the last write spoils nothing.
        Where the error itself cannot be written, the log is told, and no other error is
        raised in its place.
        """
        if self.path(RESULTS).exists():
            return
        text = "".join(traceback.format_exception(error))
        try:
            write_error(self.directory, category(error), type(error).__name__, str(error), text)
        except OSError as failure:
            logger.warning("error.json cannot be written: %s", failure)

    def is_held(self) -> bool:
        """Whether the directory is still there, and this process's own."""
        return self._claim is not None and self._claim.is_held()

    def check_claim(self) -> None:
        """Make sure that the directory is still there, and this process's own.

        Raises:
            Busy: if it is not.
        """
        assert self._claim is not None, "check_claim outside `claimed`"
        self._claim.check()

    def complete(self, results: dict[str, Any], scores: Sequence[Score]) -> dict[str, Any]:
        """Write the scores and, last, results.json; return what it holds.

        Raises:
            Busy: if the claim was lost; nothing is written then.
        """
        assert self._claim is not None, "complete outside `claimed`"
        self._claim.check()
        write_atomically(self.path(SCORES), json_lines(list(scores)))
        self.path(ERROR).unlink(missing_ok=True)
        # Written last: its existence is what "complete" means to resume.
        stamped = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            **results,
            # Again, for those who read thousands of results: JSON parses much faster than yaml.
            "config": self._config,
        }
        write_json(self.path(RESULTS), stamped)
        shutil.rmtree(self.path(PREVIOUS), ignore_errors=True)
        return stamped

    def _put_aside(self) -> None:
        """Move the files of the last run away; those of an older one that wait stay."""
        present = [self.path(name) for name in _FILES if self.path(name).exists()]
        aside = self.path(PREVIOUS)
        if not present:
            return
        if self.path(RESULTS).exists():
            # What waits is older than a complete result: `complete` was killed at its end.
            shutil.rmtree(aside, ignore_errors=True)
        if aside.exists():
            logger.info("%s: dropping an unfinished repetition", self.directory)
            for path in present:
                path.unlink()
            return
        aside.mkdir()
        # results.json first: without it the rest is an unfinished run, which is harmless.
        for path in sorted(present, key=lambda path: path.name != RESULTS):
            path.rename(aside / path.name)

    def load(self) -> None:
        """Read what is answered; drop what an interrupted attempt left unfinished."""
        _whole_lines(self.path(STARTS))
        path = self.path(PREDICTIONS)
        records = _whole_lines(path)
        self.predictions = {}
        for number, record in enumerate(records, start=1):
            prediction = _prediction(record, path, number)
            if prediction.example_id in self.predictions:
                raise DamagedResults(
                    f"{path} answers {prediction.example_id!r} twice (line {number}); "
                    "repair the file, or start afresh with resume=false"
                )
            self.predictions[prediction.example_id] = prediction
        self._drop_metrics_of_unanswered()

    def _drop_metrics_of_unanswered(self) -> None:
        """Keep each answered example's records; the others will be logged again."""
        path = self.path(MICRO_METRICS)
        if not path.exists():
            self.micro_metric_records = 0
            return
        known = {None, *self.predictions}

        def kept() -> Iterator[bytes]:
            # One at a time: there may be more of them than fit into memory.
            for record, line in whole_json_lines(path):
                if record.get("metadata", {}).get("example_id") in known:
                    yield line

        self.micro_metric_records = size = 0
        for line in kept():
            self.micro_metric_records += 1
            size += len(line)
        if size < path.stat().st_size:
            write_atomically(path, kept())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line that a killed process left torn is cut off the file."""
    records, good_bytes, torn = read_json_lines(path)
    if torn:
        logger.warning("%s: dropping a torn last line; what it told is done again", path)
        os.truncate(path, good_bytes)
    return records


def _prediction(record: dict[str, Any], path: Path, number: int) -> Prediction:
    try:
        return Prediction(**record)
    except TypeError as error:
        names = [field.name for field in dataclasses.fields(Prediction)]
        raise DamagedResults(
            f"{path} line {number} has the fields {sorted(record)}, expected {sorted(names)}; "
            "it is from another version. Use that one, or start afresh with resume=false"
        ) from error


def write_error(directory: Path, kind: str, name: str, message: str, trace: str) -> None:
    """Write error.json; counts the attempts of those before it."""
    path = directory / ERROR
    try:
        attempt = int(read_json(path).get("attempt", 0)) + 1 if path.exists() else 1
    except DamagedResults:
        attempt = 1
    directory.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "category": kind,
            "type": name,
            "message": message,
            "traceback": trace,
            "attempt": attempt,
            "time": datetime.now(UTC).isoformat(),
        },
    )


def require_writable(root: Path) -> None:
    """Make the output root and check that files can be created in it.

    Raises:
        ConfigurationError: naming the path and the system's reason.
    """
    probe = root / f".write-probe-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        # Another host's process of this number may probe too.
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"output_root: cannot write to {str(root)!r} ({error.strerror}); choose another with "
            "output_root=DIR"
        ) from error
