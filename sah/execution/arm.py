"""One experiment at work in its output directory: what it stores, and how it ends."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from sah.errors import ends_process
from sah.execution.accounting import Clock, PeakMemory
from sah.execution.answering import Answering, Question
from sah.execution.experiment import Experiment
from sah.execution.logs import lines_of
from sah.execution.progress import Progress
from sah.metric_logging.metrics import DenseOutputs
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.results import ResultStore
from sah.results.store import MICRO_METRICS
from sah.types import Example, Prediction

logger = logging.getLogger(__name__)


class Arm:
    """Answers examples under its attention and stores each answer as it is given.

    Everything that could differ between two attentions lives here, so that several arms
    can share one model and one prefill: what one of them does, and how it ends, changes
    nothing for the others.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: ResultStore,
        *,
        ended: Callable[["Arm"], None] = lambda arm: None,
    ) -> None:
        """Make an arm of an experiment.

        Args:
            experiment: loads nothing yet.
            store: claimed, with what is answered already.
            ended: called once, when the arm has its results or its error.
        """
        self.experiment = experiment
        self.store = store
        self._ended = ended
        self.clock = Clock(experiment.timeout_minutes)
        self.memory = PeakMemory()
        self.results: dict[str, Any] | None = None
        self.error: Exception | None = None
        """What ended this arm before its results."""
        self.metrics = experiment.metric_logging.logger(
            store.path(MICRO_METRICS),
            seed=experiment.seed,
            records_logged=store.micro_metric_records,
            # Later the file may be another process's.
            may_write=store.is_held,
        )
        self._answering = Answering(experiment, self.metrics, self.clock)
        self._progress: Progress | None = None
        self._open = ExitStack()
        self._open.callback(self.metrics.close)

    @property
    def is_over(self) -> bool:
        """Whether the arm has its results or its error."""
        return self.results is not None or self.error is not None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work of this arm: what fails inside the with block ends this arm and no other."""
        with lines_of(self.store.directory), self.clock.running(), self.memory.measured():
            try:
                yield
            except Exception as error:
                if ends_process(error):
                    raise
                self.fail(error)

    def finish(self, results: dict[str, Any]) -> None:
        """End with results."""
        self.results = results
        self.close()
        self._ended(self)

    def fail(self, error: Exception) -> None:
        """End without results; what was answered stays."""
        self.error = error
        # What the failed calls held on the GPU goes; the lines of the traceback stay.
        traceback.clear_frames(error.__traceback__)
        try:
            self.close()
        except OSError as failure:
            # The disk that is full for an answer is full for its metrics. They are measured
            # again; what is to be told is the first error.
            logger.warning("micro metrics cannot be written: %s", failure)
        self._ended(self)

    def close(self) -> None:
        """Write what waits to be written, and take the bar from the screen."""
        self._open.close()

    def begin(
        self, examples: Sequence[Example], *, made_by: Mapping[str, Any], alone: bool
    ) -> None:
        """Take in what there is to do.

        Args:
            examples: all of the experiment's.
            made_by: code, libraries and device; kept if there is something left to answer.
            alone: whether this is the only arm; then a terminal shows a bar.

        Raises:
            DamagedResults: if something else was answered in the arm's directory.
        """
        self.store.check_examples([example.id for example in examples])
        if self.pending(examples):
            self.store.note_start(made_by)
        answered = [example for example in examples if example.id in self.store.predictions]
        _log_what_is_left(examples, {example.id for example in self.pending(examples)})
        before = self.experiment.benchmark.score(
            answered, [self.store.predictions[example.id] for example in answered]
        )
        scores = [score.score for score in before]
        name = "" if alone else self.experiment.sparse_attention.name
        self._progress = self._open.enter_context(
            Progress(len(examples), scores=scores, arm=name, bar=alone)
        )

    def pending(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that are not answered yet."""
        return [example for example in examples if example.id not in self.store.predictions]

    def answer_context(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        asked: Sequence[Question],
        *,
        prefill_is_shared: bool,
        dense_outputs: DenseOutputs | None,
    ) -> None:
        """Answer the questions of one context, and leave it as it was found.

        Args:
            model: the model that prefilled the context.
            context: shared with other arms, one after the other.
            asked: the questions that this arm has not answered yet, at least one.
            prefill_is_shared: whether another arm needed this prefill before.
            dense_outputs: of this context, shared with other arms; None if there are none.
        """
        prefill_seconds: float | None = context.seconds
        with self._answering.about(context, dense_outputs):
            for question, prediction in self._answering.answers(model, context, asked):
                saved = prefill_seconds if prefill_is_shared else None
                self._store(
                    question.example,
                    replace(
                        prediction, prefill_seconds=prefill_seconds, prefill_seconds_saved=saved
                    ),
                )
                prefill_seconds = None

    def _store(self, example: Example, prediction: Prediction) -> None:
        # Metrics first: records without an answer are dropped on resume, an answer whose
        # records are missing could not be told from one that had none.
        self.metrics.flush()
        self.store.append(prediction)
        (score,) = self.experiment.benchmark.score([example], [prediction])
        if self._progress is not None:
            self._progress.advance(score.score)


def _log_what_is_left(examples: Sequence[Example], waiting: set[str]) -> None:
    left = Counter(example.task for example in examples if example.id in waiting)
    for task, size in Counter(example.task for example in examples).items():
        if left[task] < size:
            logger.info(
                "%s: %d of %d examples already answered, %d to go",
                *(task, size - left[task], size, left[task]),
            )
