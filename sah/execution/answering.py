"""Answering under one attention: from a prefilled context and a question to a prediction."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from sah.attention import DenseAttention, SparseAttention
from sah.attention.keys_read import KeysRead, visible_keys
from sah.attention.session import AttentionSession, Observer
from sah.errors import ConfigurationError
from sah.execution.accounting import Clock, CpuTime
from sah.execution.experiment import Experiment
from sah.execution.keeping import Keeping
from sah.execution.teacher_forcing import DenseAnswer, LayerErrors, TeacherForcing
from sah.metric_logging import AttentionMetrics, MicroMetricLogger
from sah.metric_logging.metrics import DenseOutputs
from sah.models.batch import BatchedQuestion, answer_batch
from sah.models.chat_template import SPLIT
from sah.models.decoding import Answer
from sah.models.generation import Sampler, naming_example
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.models.thoughts import Thinking
from sah.results.stored_lines import Inputs, references_hash
from sah.types import Example, Prediction


@dataclass(frozen=True, kw_only=True)
class Question:
    """An example with its encoded prompt."""

    example: Example
    prompt: EncodedPrompt
    dense_answer: DenseAnswer | None = None
    """The answer to follow under teacher forcing; None for free decoding."""


def by_context(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Group consecutive examples that share a prefill."""

    def prefilled_as(example: Example) -> tuple[str, bool]:
        return example.context, example.chat_template and not example.is_continuation

    for _, group in groupby(examples, key=prefilled_as):
        yield list(group)


def encode_context(
    experiment: Experiment, prompts: PromptEncoder, examples: Sequence[Example]
) -> tuple[list[EncodedPrompt], list[int]]:
    """Encode the prompts of one context's examples; return them and the room of each answer."""
    # All questions, pending or not: where the context is cut must not depend on a resume.
    encoded = [prompts.encode(example) for example in examples]
    rooms = [
        prompts.room(example, prompt, experiment.generation)
        for example, prompt in zip(examples, encoded, strict=True)
    ]
    return prompts.fit(examples, encoded, rooms), rooms


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


class Answering:
    """Answers under an experiment's attention, protocol and metric logging. Stores nothing."""

    def __init__(self, experiment: Experiment, metrics: MicroMetricLogger, clock: Clock) -> None:
        """Set up the attention session and its observers.

        Args:
            experiment: gives attention, protocol, generation and seed.
            metrics: takes the micro metrics; opened and closed by the caller.
            clock: checked between two tokens.
        """
        self.experiment = experiment
        self.metrics = metrics
        self.clock = clock
        self._attention_metrics = AttentionMetrics(metrics)
        self._layer_errors = LayerErrors()
        self._prefill_density: float | None = None
        observers: list[Observer] = []
        if experiment.metric_logging.enabled_metrics:
            observers.append(self._attention_metrics)
        if experiment.protocol.answer == "forced":
            observers.append(self._layer_errors)
        attention = experiment.sparse_attention
        if isinstance(attention, SparseAttention):
            attention = attention.after_context
        self.session = AttentionSession(attention, seed=experiment.seed, observers=tuple(observers))
        self.keeping = Keeping(experiment, self.session)

    @contextmanager
    def about(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        prompt: EncodedPrompt,
        dense_outputs: DenseOutputs | None,
    ) -> Iterator[PrefilledContext]:
        """Answer questions of one context inside the block; its index is dropped on exit.

        Args:
            model: the model that prefilled the context.
            context: shared with other arms, which use it in turn.
            prompt: of one of the questions.
            dense_outputs: of this context, shared with other arms; None for a single arm.

        Yields:
            The context as this arm has it: with the keys that it keeps, as it stores them.
        """
        self._prefill_density = context.prefill_density if context.length else None
        own = self.keeping.begin(model, context, prompt, self.clock.check)
        self._attention_metrics.dense_outputs = dense_outputs
        try:
            yield own
        finally:
            # Only one index in memory at a time: the next arm builds its own.
            self.session.end_context()
            self._attention_metrics.dense_outputs = None

    def answers(
        self, model: LanguageModel, context: PrefilledContext, asked: Sequence[Question]
    ) -> Iterator[tuple[Question, Prediction]]:
        """Answer questions of a context in order; its cache is rewound after each.

        Args:
            model: the model that prefilled the context.
            context: the one that `about` yields.
            asked: at least one.
        """
        size = self.experiment.generation.batch_questions or 1
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]
            alone = len(batch) == 1 or any(question.example.is_continuation for question in batch)
            answer = self._answer_each if alone else self._answer_together
            for question, prediction in zip(batch, answer(model, context, batch), strict=True):
                yield question, self._followed_up(model, question.example, prediction)

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
        follows = None if question.dense_answer is None else TeacherForcing(question.dense_answer)
        self._layer_errors.begin_example()
        self.session.begin_example(example.id)
        self.metrics.begin_example(example.id)
        if example.is_continuation:
            return self._continue(model, context, question)
        cpu = CpuTime()
        with self.metrics.as_current():
            answer = model.answer(
                context,
                question.prompt.question_ids,
                session=self.session,
                sampler=follows or self._sampler(example, model),
                max_new_tokens=self.experiment.generation.token_limit(example.max_new_tokens),
                thinking=self._thinking(question, model),
                dense_question=self.experiment.protocol.question == "dense",
                after_question=self.keeping.after_question(model),
                between_tokens=self.clock.check,
            )
        used = cpu.used()
        prediction = self._prediction(model, question, answer, self.session, used)
        if follows is None:
            return prediction
        measured = follows.measured() | self._layer_errors.measured()
        return replace(prediction, dense_agreement=measured)

    def _continue(
        self, model: LanguageModel, context: PrefilledContext, question: Question
    ) -> Prediction:
        """Measure the loss of a continuation, which is given, not generated."""
        protocol = self.experiment.protocol
        if protocol.question == "dense":
            raise ConfigurationError(
                f"example {question.example.id}: with protocol={protocol.name} its continuation "
                "would be computed by dense attention and measure nothing; use protocol=default"
            )
        cpu = CpuTime()
        with self.metrics.as_current():
            loss, seconds = model.continuation_loss(
                context,
                question.prompt.question_ids,
                session=self.session,
                between_chunks=self.clock.check,
            )
        used, given = cpu.used(), Answer.given(seconds)
        prediction = self._prediction(model, question, given, self.session, used)
        return replace(prediction, loss=loss)

    def _answer_together(
        self, model: LanguageModel, context: PrefilledContext, batch: Sequence[Question]
    ) -> list[Prediction]:
        """Decode in one batch; each question has its own session and micro metrics."""
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
                thinking=self._thinking(question, model),
                begin_turn=partial(self.metrics.resume_example, records_of_one),
            )
            for question, records_of_one in zip(batch, records, strict=True)
        ]
        cpu = CpuTime()
        with self.metrics.as_current():
            answers = answer_batch(
                model,
                context,
                decoding,
                dense_question=self.experiment.protocol.question == "dense",
                between_tokens=self.clock.check,
            )
        process, thread = (seconds / len(batch) for seconds in cpu.used())
        predictions = []
        for question, answer, row in zip(batch, answers, decoding, strict=True):
            row.begin_turn()
            predictions.append(
                self._prediction(model, question, answer, row.session, (process, thread))
            )
        return predictions

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

    def _sampler(self, example: Example, model: LanguageModel) -> Sampler:
        seed = self.experiment.seed
        return self.experiment.generation.sampler(seed, example.id, model.device)

    def _thinking(self, question: Question, model: LanguageModel) -> Thinking | None:
        return model.prompts.thinking(question.prompt, self.experiment.generation.thinking_tokens)

    def _prediction(
        self,
        model: LanguageModel,
        question: Question,
        answer: Answer,
        session: AttentionSession,
        cpu_seconds: tuple[float, float],
    ) -> Prediction:
        """Describe an answer and what was measured of it, and end its example."""
        self.metrics.end_example()
        read = session.keys_read()
        example, prompt, thought = question.example, question.prompt, answer.thought
        return Prediction(
            example_id=example.id,
            task=example.task,
            text=_text(model, answer),
            **vars(inputs_of(self.experiment, example, prompt)),
            context_hash=context_hash(example, prompt),
            finish_reason=answer.finish_reason,
            context_tokens=len(prompt.context_ids),
            question_tokens=len(prompt.question_ids),
            new_tokens=answer.steps,
            prefill_seconds=None,
            decode_seconds=answer.seconds + self.keeping.take_seconds(),
            decode_cpu_seconds=cpu_seconds[0],
            decode_thread_seconds=cpu_seconds[1],
            density=None if read is None else read.density,
            rows_read=None if read is None else read.rows_read,
            prefill_density=self._prefill_density,
            keys_read=self._keys_read(prompt, answer.steps, read),
            index_bytes=self.session.index_bytes() | self.keeping.indexer_bytes,
            resident=self.keeping.resident(model, session),
            truncated=prompt.truncated,
            **self._sampled(read),
            chat_template=prompt.chat_template,
            thought=None if thought is None else thought.text,
            thought_tokens=None if thought is None else thought.tokens,
            unfinished_thought=thought is not None and not thought.is_finished,
        )

    def _keys_read(self, prompt: EncodedPrompt, steps: int, read: KeysRead | None) -> float:
        """Return the keys read by all queries of question and answer, sparse or dense."""
        context, question = len(prompt.context_ids), len(prompt.question_ids)
        if isinstance(self.session.attention, DenseAttention):
            # No query follows the last token.
            return visible_keys(context, question + steps - 1)
        is_dense = self.experiment.protocol.question == "dense"
        by_question = visible_keys(context, question) if is_dense else 0
        return by_question + (0 if read is None else read.keys)

    def _sampled(self, read: KeysRead | None) -> dict[str, Any]:
        """Return output error and recall of the current example, and how much they cover."""
        if read is None or isinstance(self.session.attention, DenseAttention):
            return {}
        means = self._attention_metrics.means()
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
