"""Answering under one attention: from a prefilled context and a question to a prediction."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sah.attention import DenseAttention, SparseAttention
from sah.attention.keys_read import KeysRead, visible_keys
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.execution.accounting import Clock, CpuTime
from sah.execution.experiment import Experiment
from sah.execution.keeping import Keeping
from sah.execution.teacher_forcing import DenseAnswer, LayerErrors, TeacherForcing
from sah.metric_logging import AttentionMetrics, MicroMetricLogger
from sah.metric_logging.logger import ExampleRecords
from sah.metric_logging.metrics import DenseOutputs
from sah.models.batch import Row, answer_rows
from sah.models.chat_template import SPLIT
from sah.models.decoding import Answer
from sah.models.generation import TokenChooser, naming_example
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt
from sah.results.stored_lines import Inputs, references_hash
from sah.types import Example, Prediction


@dataclass(frozen=True, kw_only=True)
class Question:
    """An example with its encoded prompt."""

    example: Example
    prompt: EncodedPrompt
    dense_answer: DenseAnswer | None = None
    """The answer to follow under teacher forcing; None for free decoding."""


def inputs_of(experiment: Experiment, example: Example, prompt: EncodedPrompt) -> Inputs:
    """Return what the answer to an example is compared by when it is read again."""
    limit = experiment.generation.token_limit(example.max_new_tokens)
    return Inputs(
        input_hash=_input_hash(example, prompt),
        references_hash=references_hash(example),
        token_limit=None if example.is_continuation else limit,
    )


def context_hash(example: Example, prompt: EncodedPrompt) -> str:
    """Return the hash by which answers about one context are told from others."""
    # Questions without a context share nothing but the chat template.
    return prompt.context_hash if example.context.strip() else prompt.input_hash


def _input_hash(example: Example, prompt: EncodedPrompt) -> str:
    """Hash the prompt's token ids and what is asked after its answer."""
    if example.follow_up is None:
        return prompt.input_hash
    text = json.dumps([prompt.input_hash, asdict(example.follow_up)])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ContextAtWork:
    """A prefilled context as one arm has it."""

    shared: PrefilledContext
    """With all keys; other arms use it in turn."""
    own: PrefilledContext
    """With the keys that the arm keeps, as it stores them."""
    session: AttentionSession
    """Holds the indexes of the context; its questions have forks of it."""
    keeping: Keeping
    metrics: AttentionMetrics

    def with_prefill_seconds(self, prediction: Prediction, is_shared: bool) -> Prediction:
        """Add the time of the prefill to the first answer, and what of it another arm spent."""
        seconds, keeping = self.shared.seconds, self.keeping
        saved = keeping.repeated_seconds_saved + (seconds if is_shared else 0.0)
        return replace(
            prediction,
            prefill_seconds=seconds + keeping.repeated_seconds,
            prefill_seconds_saved=saved or None,
        )


@dataclass(frozen=True, kw_only=True)
class _AtWork:
    """A question while it is answered."""

    question: Question
    context: ContextAtWork
    row: Row
    keeping: Keeping
    records: ExampleRecords
    layer_errors: LayerErrors


class Answering:
    """Answers under an experiment's attention, protocol and metric logging. Stores nothing."""

    def __init__(self, experiment: Experiment, metrics: MicroMetricLogger, clock: Clock) -> None:
        """Prepare to answer.

        Args:
            experiment: gives attention, protocol, generation and seed.
            metrics: takes the micro metrics; opened and closed by the caller.
            clock: checked between two tokens.
        """
        self.experiment = experiment
        self.metrics = metrics
        self.clock = clock
        attention = experiment.sparse_attention
        self._attention = (
            attention.after_context if isinstance(attention, SparseAttention) else attention
        )

    @contextmanager
    def about(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        prompt: EncodedPrompt,
        dense_outputs: DenseOutputs | None,
    ) -> Iterator[ContextAtWork]:
        """Answer questions of a context inside the block; its indexes are dropped on exit.

        Args:
            model: the model that prefilled the context.
            context: shared with other arms, which use it in turn.
            prompt: of one of the questions.
            dense_outputs: of this context, shared with other arms; None for a single arm.

        Yields:
            The context as this arm has it.
        """
        metrics = AttentionMetrics(self.metrics)
        metrics.dense_outputs = dense_outputs
        observers = (metrics,) if self.experiment.metric_logging.enabled_metrics else ()
        session = AttentionSession(self._attention, seed=self.experiment.seed, observers=observers)
        keeping = Keeping(self.experiment, session)
        try:
            own = keeping.begin(model, context, prompt, self.clock.check)
            yield ContextAtWork(
                shared=context, own=own, session=session, keeping=keeping, metrics=metrics
            )
        finally:
            # The next arm builds indexes of its own.
            session.end_context()

    def answers(
        self,
        model: LanguageModel,
        batch: Sequence[tuple[ContextAtWork, Question]],
        *,
        pending: Collection[str],
    ) -> Iterator[tuple[ContextAtWork, Question, Prediction]]:
        """Answer the questions of a batch; the caches of their contexts are rewound.

        Args:
            model: the model that prefilled the contexts.
            batch: at least one question, each with the context that `about` yields.
            pending: ids of the examples whose answers are wanted. The others are answered as well,
                since rounding depends on all rows of a batch.
        """
        alone = any(question.example.is_continuation for _, question in batch)
        for part in [[one] for one in batch] if alone else [batch]:
            if not any(question.example.id in pending for _, question in part):
                continue
            for one, prediction in self._answered(model, part, pending):
                example = one.question.example
                prediction = self._followed_up(model, example, prediction)
                yield one.context, one.question, prediction

    def _answered(
        self,
        model: LanguageModel,
        batch: Sequence[tuple[ContextAtWork, Question]],
        pending: Collection[str],
    ) -> Iterator[tuple[_AtWork, Prediction]]:
        work = [
            self._begin(model, context, question, pending=pending, takes_turns=len(batch) > 1)
            for context, question in batch
        ]
        cpu = CpuTime()
        with self.metrics.as_current():
            if batch[0][1].example.is_continuation:
                loss, answers = self._continued(model, *work)
            else:
                loss = None
                answers = answer_rows(
                    model,
                    [one.row for one in work],
                    dense_question=self.experiment.protocol.question == "dense",
                    between_tokens=self.clock.check,
                    stacked_tokens=self.experiment.generation.batch_tokens,
                )
        used = tuple(seconds / len(work) for seconds in cpu.used())
        for one, answer in zip(work, answers, strict=True):
            if one.question.example.id in pending:
                self.metrics.resume_example(one.records)
                yield one, self._prediction(model, one, answer, used, loss)

    def _begin(
        self,
        model: LanguageModel,
        context: ContextAtWork,
        question: Question,
        *,
        pending: Collection[str],
        takes_turns: bool,
    ) -> _AtWork:
        example, generation = question.example, self.experiment.generation
        layer_errors = LayerErrors()
        observers = () if question.dense_answer is None else (layer_errors,)
        is_after_question = context.keeping.is_after_question
        session = context.session.fork(*observers, alone=is_after_question)
        keeping = context.keeping
        if is_after_question:
            keeping = keeping.of_question(session)
        records = self.metrics.begin_example(
            example.id, is_kept=example.id in pending, takes_turns=takes_turns
        )
        sampler: TokenChooser = (
            generation.sampler(self.experiment.seed, example.id, model.device)
            if question.dense_answer is None
            else TeacherForcing(question.dense_answer)
        )
        row = Row(
            example_id=example.id,
            context=context.own,
            question_ids=question.prompt.question_ids,
            session=session,
            sampler=sampler,
            max_new_tokens=generation.token_limit(example.max_new_tokens),
            thinking=model.prompts.thinking(question.prompt, generation.thinking_tokens),
            after_question=keeping.after_question(model),
            begin_turn=partial(self.metrics.resume_example, records),
        )
        return _AtWork(
            question=question,
            context=context,
            row=row,
            keeping=keeping,
            records=records,
            layer_errors=layer_errors,
        )

    def _continued(self, model: LanguageModel, one: _AtWork) -> tuple[float, list[Answer]]:
        """Measure the loss of a continuation, which is given, not generated."""
        example, protocol = one.question.example, self.experiment.protocol
        if protocol.question == "dense":
            raise ConfigurationError(
                f"example {example.id}: with protocol={protocol.name} its continuation "
                "would be computed by dense attention and measure nothing; use protocol=default"
            )
        one.row.begin_turn()
        one.row.session.begin_example(example.id)
        with naming_example(example.id):
            loss, seconds = model.continuation_loss(
                one.row.context,
                one.row.question_ids,
                session=one.row.session,
                between_chunks=self.clock.check,
            )
        return loss, [Answer.given(seconds)]

    def _followed_up(self, model: LanguageModel, example: Example, first: Prediction) -> Prediction:
        """Return an answer with the text of its follow-up, if there is one.

        The model reads and answers it with dense attention: what is compared is the first answer.
        """
        if example.follow_up is None:
            return first
        asked, generation = example.follow_up, self.experiment.generation
        second = replace(
            example,
            # The mark of the context's end is refused in data, but a model may write it.
            context=asked.before + first.text.strip().replace(SPLIT, ""),
            question=asked.after,
            answer_prefix="",
            max_new_tokens=asked.max_new_tokens,
            # As published, the middle of a long request is cut out.
            may_cut=True,
            max_tokens=None,
        )
        with naming_example(f"{example.id} (follow-up)"):
            encoded = model.prompts.encode(second)
            room = model.prompts.room(second, encoded, generation)
            (prompt,) = model.prompts.fit([second], [encoded], [room])
            answer = model.answer(
                model.prefill(prompt.context_ids, reserve_tokens=len(prompt.question_ids) + room),
                prompt.question_ids,
                session=AttentionSession(DenseAttention(), seed=self.experiment.seed),
                sampler=generation.sampler(
                    self.experiment.seed, f"{example.id} (follow-up)", model.device
                ),
                max_new_tokens=generation.token_limit(second.max_new_tokens),
                thinking=model.prompts.thinking(prompt, generation.thinking_tokens),
                between_tokens=self.clock.check,
            )
        return replace(first, text=_text(model, answer), first_answer=first.text)

    def _prediction(
        self,
        model: LanguageModel,
        one: _AtWork,
        answer: Answer,
        cpu_seconds: Sequence[float],
        loss: float | None,
    ) -> Prediction:
        """Describe an answer and what was measured of it, and end its example."""
        self.metrics.end_example()
        session, sampler, shared = one.row.session, one.row.sampler, one.context.shared
        read = session.keys_read()
        example, prompt, thought = one.question.example, one.question.prompt, answer.thought
        return Prediction(
            example_id=example.id,
            task=example.task,
            text=_text(model, answer),
            **vars(inputs_of(self.experiment, example, prompt)),
            context_hash=context_hash(example, prompt),
            finish_reason=answer.finish_reason,
            loss=loss,
            context_tokens=len(prompt.context_ids),
            question_tokens=len(prompt.question_ids),
            new_tokens=answer.steps,
            prefill_seconds=None,
            decode_seconds=answer.seconds + one.keeping.take_seconds(),
            decode_cpu_seconds=cpu_seconds[0],
            decode_thread_seconds=cpu_seconds[1],
            density=None if read is None else read.density,
            rows_read=None if read is None else read.rows_read,
            prefill_density=shared.prefill_density if shared.length else None,
            keys_read=self._keys_read(prompt, answer.steps, read),
            index_bytes=session.index_bytes() | one.keeping.indexer_bytes,
            resident=one.keeping.resident(model, session),
            truncated=prompt.truncated,
            **self._sampled(one.context.metrics, read),
            chat_template=prompt.chat_template,
            thought=None if thought is None else thought.text,
            thought_tokens=None if thought is None else thought.tokens,
            unfinished_thought=thought is not None and not thought.is_finished,
            dense_agreement=sampler.measured() | one.layer_errors.measured()
            if isinstance(sampler, TeacherForcing)
            else None,
        )

    def _keys_read(self, prompt: EncodedPrompt, steps: int, read: KeysRead | None) -> float:
        """Return the keys read by all queries of question and answer, sparse or dense."""
        context, question = len(prompt.context_ids), len(prompt.question_ids)
        if isinstance(self._attention, DenseAttention):
            # No query follows the last token.
            return visible_keys(context, question + steps - 1)
        is_dense = self.experiment.protocol.question == "dense"
        by_question = visible_keys(context, question) if is_dense else 0
        return by_question + (0 if read is None else read.keys)

    def _sampled(self, metrics: AttentionMetrics, read: KeysRead | None) -> dict[str, Any]:
        """Return output error and recall of the current example, and how much they cover."""
        if read is None or isinstance(self._attention, DenseAttention):
            return {}
        means = metrics.means()
        drawn = means.queries
        return {
            "queries": read.queries,
            "measured_queries": drawn + read.dense_queries if drawn else drawn,
            "output_error": read.with_dense_layers(means.output_error, dense=0.0),
            "recall": read.with_dense_layers(means.recall, dense=1.0),
        }


def _text(model: LanguageModel, answer: Answer) -> str:
    text = model.prompts.decode(answer.answer_ids)
    # The white space after a thought belongs to its end mark.
    return text if answer.thought is None else (answer.thought.rest + text).lstrip()
