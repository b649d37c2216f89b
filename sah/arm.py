"""One attention configuration at work in one output directory."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sah.attention.session import AttentionSession, Observer
from sah.clock import Clock
from sah.configuration import Experiment
from sah.errors import ConfigurationError, ends_process
from sah.forcing import Forced, LayerErrors, Reference
from sah.logs import lines_of
from sah.memory import PeakMemory
from sah.metric_logging import AttentionMetrics
from sah.metric_logging.metrics import OUTPUT_ERROR, RECALL, DenseOutputs
from sah.models.batch import BatchedQuestion, answer_batch
from sah.models.generation import Sampler, naming_example
from sah.models.language_model import Answer, LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt
from sah.progress import Progress
from sah.results import ResultStore
from sah.results.store import MICRO_METRICS
from sah.types import Example, Prediction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Question:
    """An example, ready to be asked."""

    example: Example
    prompt: EncodedPrompt
    reference: Reference | None = None
    """The dense answer that arms are to follow; None leaves them free."""


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
        )
        self._observer = AttentionMetrics(self.metrics)
        self._layer_errors = LayerErrors()
        observers: list[Observer] = []
        if experiment.metric_logging.enabled_metrics:
            observers.append(self._observer)
        if experiment.protocol.answer == "forced":
            observers.append(self._layer_errors)
        self.session = AttentionSession(
            experiment.sparse_attention, seed=experiment.seed, observers=tuple(observers)
        )
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
        self.session.end_context()
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

    def begin(self, examples: Sequence[Example], *, alone: bool) -> None:
        """Take in what there is to do.

        Args:
            examples: all of the experiment's.
            alone: whether this is the only arm; then a terminal shows a bar.

        Raises:
            DamagedResults: if something else was answered in the arm's directory.
        """
        self.store.check_examples([example.id for example in examples])
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
        self.session.begin_context(context.length)
        self._observer.dense_outputs = dense_outputs
        try:
            prefill_seconds: float | None = context.seconds
            size = self.experiment.generation.batch_questions or 1
            for start in range(0, len(asked), size):
                batch = asked[start : start + size]
                alone = len(batch) == 1 or any(question.example.forced for question in batch)
                answer = self._answer_each if alone else self._answer_together
                for question, prediction in zip(batch, answer(model, context, batch), strict=True):
                    saved = prefill_seconds if prefill_is_shared else None
                    self._store(
                        question.example,
                        replace(
                            prediction,
                            prefill_seconds=prefill_seconds,
                            prefill_seconds_saved=saved,
                        ),
                    )
                    prefill_seconds = None
        finally:
            # One index at a time: the next arm builds its own.
            self.session.end_context()
            self._observer.dense_outputs = None

    def _answer_each(
        self, model: LanguageModel, context: PrefilledContext, batch: Sequence[Question]
    ) -> Iterator[Prediction]:
        for question in batch:
            with naming_example(question.example.id):
                prediction = self._answer_one(model, context, question)
            yield prediction

    def _answer_one(
        self, model: LanguageModel, context: PrefilledContext, question: Question
    ) -> Prediction:
        example = question.example
        forced = None if question.reference is None else Forced(question.reference)
        self._layer_errors.begin_example()
        self.session.begin_example(example.id)
        self.metrics.begin_example(example.id)
        if example.forced:
            return self._continue(model, context, question)
        with self.metrics.as_current():
            answer = model.answer(
                context,
                question.prompt.question_ids,
                session=self.session,
                sampler=forced or self._sampler(example, model),
                max_new_tokens=self.experiment.generation.token_limit(example.max_new_tokens),
                dense_question=self.experiment.protocol.question == "dense",
                between_tokens=self.clock.check,
            )
        prediction = self._prediction(model, question, answer, self.session.density())
        if forced is None:
            return prediction
        measured = forced.measured() | self._layer_errors.measured()
        return replace(prediction, forced=measured)

    def _continue(
        self, model: LanguageModel, context: PrefilledContext, question: Question
    ) -> Prediction:
        """Measure the loss of a continuation that is given, not generated."""
        protocol = self.experiment.protocol
        if protocol.question == "dense":
            raise ConfigurationError(
                f"example {question.example.id}: with protocol={protocol.name} its continuation "
                "would be computed by dense attention and measure nothing; use protocol=default"
            )
        with self.metrics.as_current():
            loss, seconds = model.continuation_loss(
                context,
                question.prompt.question_ids,
                session=self.session,
                between_chunks=self.clock.check,
            )
        nothing = Answer(token_ids=[], finish_reason="forced", steps=0, seconds=seconds)
        prediction = self._prediction(model, question, nothing, self.session.density())
        return replace(prediction, loss=loss)

    def _answer_together(
        self, model: LanguageModel, context: PrefilledContext, batch: Sequence[Question]
    ) -> list[Prediction]:
        """Decode in one batch; each question has a session and micro metrics of its own."""
        records = [self.metrics.begin_example(question.example.id) for question in batch]
        decoding = [
            BatchedQuestion(
                example_id=question.example.id,
                question_ids=question.prompt.question_ids,
                session=self.session.fork(),
                sampler=self._sampler(question.example, model),
                max_new_tokens=self.experiment.generation.token_limit(
                    question.example.max_new_tokens
                ),
                begin_turn=partial(self.metrics.resume_example, records_of_one),
            )
            for question, records_of_one in zip(batch, records, strict=True)
        ]
        with self.metrics.as_current():
            answers = answer_batch(
                model,
                context,
                decoding,
                dense_question=self.experiment.protocol.question == "dense",
                between_tokens=self.clock.check,
            )
        predictions = []
        for question, answer, row in zip(batch, answers, decoding, strict=True):
            row.begin_turn()
            predictions.append(self._prediction(model, question, answer, row.session.density()))
        return predictions

    def _sampler(self, example: Example, model: LanguageModel) -> Sampler:
        seed = self.experiment.seed
        return self.experiment.generation.sampler(seed, example.id, model.device)

    def _prediction(
        self, model: LanguageModel, question: Question, answer: Answer, density: float | None
    ) -> Prediction:
        example, prompt = question.example, question.prompt
        return Prediction(
            example_id=example.id,
            task=example.task,
            text=model.prompts.decode(answer.token_ids),
            input_hash=prompt.input_hash,
            context_hash=prompt.context_hash,
            finish_reason=answer.finish_reason,
            context_tokens=len(prompt.context_ids),
            question_tokens=len(prompt.question_ids),
            new_tokens=answer.steps,
            prefill_seconds=None,
            decode_seconds=answer.seconds,
            density=density,
            index_bytes=self.session.index_bytes(),
            truncated=prompt.truncated,
            output_error=self.metrics.example_mean(OUTPUT_ERROR),
            recall=self.metrics.example_mean(RECALL),
        )

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
