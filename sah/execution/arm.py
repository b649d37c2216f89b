"""An arm: one experiment at work in its output directory, from its claim to its outcome."""

import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from omegaconf import DictConfig

from sah.attention import Matched, SparseAttention
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill
from sah.errors import RETRYABLE, Busy, SahError, category, ends_process
from sah.execution.accounting import Clock, PeakMemory
from sah.execution.answering import Answering, Question
from sah.execution.building import build
from sah.execution.experiment import Experiment
from sah.execution.logs import lines_of, log_file
from sah.execution.progress import Progress
from sah.metric_logging.metrics import DenseOutputs
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.loading.kept_model import free_memory
from sah.results import Result, ResultStore, directory, fingerprint
from sah.results.contents import fix_contents
from sah.results.stored_lines import MICRO_METRICS
from sah.tracking import Record, Reporter, Tracker
from sah.types import Example, Prediction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an arm ended: with a result or with an error, never both."""

    result: Result | None = None
    error: Exception | None = None


class Arm:
    """Answers examples under one attention and stores each answer as it is given.

    Whatever could differ between two attentions lives here, so that several arms can share
    one model and one prefill without affecting each other.

        with Arm(config, overrides) as arm:    # makes the experiment, claims its directory
            while arm.outcome is None:
                arm.begin_attempt()
                ...                            # ends with `finish` or `fail`

    The directory is released as soon as there is an outcome, which may be long before the
    job ends.
    """

    experiment: Experiment
    """Made when the arm is entered; loads nothing."""
    tracker: Tracker
    """Made with the experiment."""

    def __init__(self, config: DictConfig, overrides: Sequence[str]) -> None:
        """Prepare an arm; reads and writes nothing.

        Args:
            config: the composed configuration, without Hydra's own part.
            overrides: as typed, for overrides.yaml.
        """
        self.config = config.copy()
        # From here on, other content is refused.
        fix_contents(self.config)
        self.overrides = overrides
        self.store = ResultStore(directory(self.config), fingerprint(self.config))
        self.outcome: Outcome | None = None
        self.is_at_work = False
        """Whether an attempt is under way."""
        self._attempts = 0
        self._reporter: Reporter | None = None
        self._held = ExitStack()
        """What the arm holds until its outcome: the claim and run.log."""
        self._attempt = ExitStack()
        """What one attempt holds: pending metrics and the progress bar."""

    def __enter__(self) -> Self:
        """Make the experiment and claim its directory; a failure is the arm's outcome."""
        with ExitStack() as on_interruption:
            on_interruption.callback(self._held.close)
            try:
                self.experiment = Experiment.from_config(self.config)
                self.tracker = build(self.config, "tracker")
                resume = bool(self.config.resume)
                self._held.enter_context(self.store.claimed(self.config, self.overrides, resume))
                result = self.store.result()
                if result is not None:
                    logger.info("already complete: %s", self.store.directory)
                    self._end(Outcome(result=result))
                else:
                    self._held.enter_context(log_file(self.store.directory))
            except (SahError, OSError) as error:
                self._fail_for_good(error)
            on_interruption.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_attempt()
        self._held.close()
        if self._reporter is not None:
            self._reporter.stop()
            self._reporter.wait()

    # -- attempts --------------------------------------------------------------------------

    def begin_attempt(self) -> None:
        """Start, or start again, from the answers on disk; what cannot be read is the outcome."""
        if self._attempts > 0:
            # The first attempt has what the claim read.
            try:
                self.store.load()
            except (SahError, OSError) as error:
                self._fail_for_good(error)
                return
        self._attempts += 1
        self.clock = Clock(self.experiment.timeout_minutes)
        self.memory = PeakMemory()
        self.metrics = self.experiment.metric_logging.logger(
            self.store.path(MICRO_METRICS),
            seed=self.experiment.seed,
            # The claim may be lost later; the file is then another process's.
            may_write=self.store.is_held,
        )
        self._answering = Answering(self.experiment, self.metrics, self.clock)
        self._progress: Progress | None = None
        self._attempt.callback(self.metrics.close)
        self.is_at_work = True

    def finish(self, result: Result) -> None:
        """End with a result."""
        self.end_attempt()
        self._end(Outcome(result=result))
        if self._reporter is not None:
            self._reporter.finish(result)

    def fail(self, error: Exception) -> None:
        """End the attempt; stored answers stay. Without retries left, the error is the outcome."""
        # Drops the tensors that the failed calls still hold; the traceback keeps its lines.
        traceback.clear_frames(error.__traceback__)
        try:
            self.end_attempt()
        except OSError as failure:
            # A disk that is full for answers is full for metrics, which are measured again.
            # The first error is the one to report.
            logger.warning("micro metrics cannot be written: %s", failure)
        error = self._lost_claim_behind(error)
        kind = category(error)
        if self._attempts <= self.config.retries and kind in RETRYABLE:
            self.store.record_error(error)
            logger.warning("%s: %s; trying again", kind, error)
        else:
            self._fail_for_good(error)
        free_memory()

    def end_attempt(self) -> None:
        """Flush pending metrics and close the progress bar."""
        self.is_at_work = False
        self._attempt.close()

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._held.close()

    def _fail_for_good(self, error: Exception) -> None:
        # Where another process owns the directory, nothing is written.
        if not isinstance(error, Busy):
            self.store.record_error(error)
        self._end(Outcome(error=error))
        if self._reporter is not None:
            self._reporter.stop()

    def _lost_claim_behind(self, error: Exception) -> Exception:
        """Return Busy where an OSError only says that the directory is gone, else the error.

        A directory that was removed must not be made again for its error.json.
        """
        if isinstance(error, OSError):
            try:
                self.store.check_claim()
            except Busy as lost:
                return lost
        return error

    # -- work ------------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Do work of this arm only: an error inside the block ends this arm and no other."""
        with lines_of(self.store.directory), self.clock.running(), self.memory.measured():
            try:
                yield
            except Exception as error:
                if ends_process(error):
                    raise
                self.fail(error)

    def begin(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        made_by: Mapping[str, Any],
        alone: bool,
    ) -> None:
        """Check that the attention fits the model and stored answers the examples; note the start.

        Args:
            model: the one that will answer.
            examples: all of the experiment's.
            made_by: code, libraries and device; noted if there is anything left to answer.
            alone: whether this is the job's only arm; only then a terminal shows a bar.

        Raises:
            ConfigurationError: if the attention has no layer of the model to work on.
            DamagedResults: if the directory holds answers to other examples.
        """
        if isinstance(self.experiment.sparse_attention, SparseAttention):
            self.experiment.sparse_attention.check(model.model.config)
        if model.has_indexer:
            is_on = self.experiment.sparse_attention.uses_indexer
            logger.info(
                "the model's own indexer is %s",
                "on: it selects the keys that context, question and answer read"
                if is_on
                else "off: the context is prefilled with dense attention",
            )
        self.metrics.divide_records(len(examples))
        self.store.check_examples([example.id for example in examples])
        pending = self.pending(examples)
        if pending:
            for note in self.store.notes_on_content():
                logger.warning("%s", note)
            self.store.note_start(made_by)
        _log_pending(examples, {example.id for example in pending})
        answered = [example for example in examples if example.id in self.store.predictions]
        scores = self.experiment.benchmark.score(
            answered, [self.store.predictions[example.id] for example in answered]
        )
        self._progress = self._attempt.enter_context(
            Progress(
                len(examples),
                scores=[score.score for score in scores],
                arm="" if alone else self.experiment.sparse_attention.name,
                bar=alone,
            )
        )
        if self._reporter is None:
            names = (
                self.experiment.model.name,
                self.experiment.sparse_attention.name,
                self.experiment.benchmark.name,
            )
            start = Record.from_start(
                names, directory=self.store.directory, config=self.store.config
            )
            self._reporter = Reporter(self.tracker, start)
        self._report()

    def sparse_prefill(self, model: LanguageModel) -> SparsePrefill | OwnPrefill | None:
        """Return how its attention reads contexts; None for the model's own attention."""
        experiment = self.experiment
        return SparsePrefill.of(
            experiment.sparse_attention, model.model.config, seed=experiment.seed
        )

    @property
    def matched(self) -> Matched | None:
        """What its budget was matched to; None if it was not."""
        attention = self.experiment.sparse_attention
        return attention.matched if isinstance(attention, SparseAttention) else None

    def pending(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples without a stored answer."""
        return [example for example in examples if example.id not in self.store.predictions]

    def answer_group(
        self,
        model: LanguageModel,
        contexts: Sequence[PrefilledContext],
        batches: Sequence[Sequence[tuple[int, Question]]],
        *,
        prefill_is_shared: bool,
        dense_outputs: Sequence[DenseOutputs | None],
    ) -> None:
        """Answer the pending questions of some contexts; their caches are rewound afterwards.

        Args:
            model: the model that prefilled the contexts.
            contexts: shared with other arms, which use them in turn.
            batches: questions that are decoded together, each with the number of its context.
            prefill_is_shared: whether another arm used these prefills before.
            dense_outputs: of each context, shared with other arms; None without metrics of them.
        """
        left = [batch for batch in batches if self.pending([one.example for _, one in batch])]
        prompts = {number: one.prompt for batch in left for number, one in batch}
        with ExitStack() as stack:
            own = {
                number: stack.enter_context(
                    self._answering.about(model, contexts[number], prompt, dense_outputs[number])
                )
                for number, prompt in prompts.items()
            }
            untold = set(own.values())
            """Contexts whose prefill no stored answer has counted yet."""
            for batch in left:
                rows = [(own[number], question) for number, question in batch]
                pending = {one.id for one in self.pending([row.example for _, row in rows])}
                for context, question, prediction in self._answering.answers(
                    model, rows, pending=pending
                ):
                    if context in untold:
                        untold.remove(context)
                        prediction = context.with_prefill_seconds(prediction, prefill_is_shared)
                    self._store(question.example, prediction)

    def _store(self, example: Example, prediction: Prediction) -> None:
        # Metrics first: on resume, records without an answer are dropped, but an answer whose
        # records are missing would look like one that has none.
        self.metrics.flush()
        self.store.append(prediction)
        (score,) = self.experiment.benchmark.score([example], [prediction])
        if self._progress is not None:
            self._progress.advance(score.score)
        self._report()

    def _report(self) -> None:
        if self._progress is not None and self._reporter is not None:
            progress = self._progress
            self._reporter.advance(done=progress.done, total=progress.total, score=progress.score)


def _log_pending(examples: Sequence[Example], pending: set[str]) -> None:
    left = Counter(example.task for example in examples if example.id in pending)
    for task, size in Counter(example.task for example in examples).items():
        if left[task] < size:
            logger.info(
                "%s: %d of %d examples already answered, %d to go",
                *(task, size - left[task], size, left[task]),
            )
