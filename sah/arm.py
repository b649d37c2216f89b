"""One attention configuration at work in one output directory."""

from collections.abc import Callable, Sequence

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.metric_logging import AttentionMetrics, MetricLogging
from sah.metric_logging.metrics import OUTPUT_ERROR, RECALL
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt
from sah.protocol import Protocol
from sah.results import ResultStore
from sah.results.store import MICRO_METRICS
from sah.types import Example, Prediction


class Arm:
    """Answers examples under its attention and stores each answer as it is given.

    Everything that could differ between two attentions lives here, so that several arms
    can share one model and one prefill.
    """

    def __init__(
        self,
        attention: DenseAttention | SparseAttention,
        metric_logging: MetricLogging,
        store: ResultStore,
        *,
        seed: int,
        generation: Generation,
        protocol: Protocol,
    ) -> None:
        self.store = store
        self.seed = seed
        self.generation = generation
        self.protocol = protocol
        self.metrics = metric_logging.logger(
            store.path(MICRO_METRICS), seed=seed, records_logged=store.micro_metric_records
        )
        observers = (AttentionMetrics(self.metrics),) if metric_logging.enabled_metrics else ()
        self.session = AttentionSession(attention, seed=seed, observers=observers)

    def pending(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that are not answered yet."""
        return [example for example in examples if example.id not in self.store.predictions]

    def begin_context(self, context: PrefilledContext) -> None:
        """Start on another context."""
        self.session.begin_context(context.length)

    def answer(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        example: Example,
        prompt: EncodedPrompt,
        *,
        prefill_seconds: float | None,
        between_tokens: Callable[[], None],
    ) -> Prediction:
        """Answer one example from its prefilled context and store the answer."""
        self.session.begin_example(example.id)
        self.metrics.begin_example(example.id)
        with self.metrics.as_current():
            answer = model.answer(
                context,
                prompt.question_ids,
                session=self.session,
                sampler=self.generation.sampler(self.seed, example.id, model.device),
                max_new_tokens=self.generation.token_limit(example.max_new_tokens),
                dense_question=self.protocol.question == "dense",
                between_tokens=between_tokens,
            )
        prediction = Prediction(
            example_id=example.id,
            task=example.task,
            text=model.prompts.decode(answer.token_ids),
            input_hash=prompt.input_hash,
            context_hash=prompt.context_hash,
            finish_reason=answer.finish_reason,
            context_tokens=len(prompt.context_ids),
            question_tokens=len(prompt.question_ids),
            new_tokens=answer.steps,
            prefill_seconds=prefill_seconds,
            decode_seconds=answer.seconds,
            density=self.session.density(),
            truncated=prompt.truncated,
            output_error=self.metrics.example_mean(OUTPUT_ERROR),
            recall=self.metrics.example_mean(RECALL),
        )
        # Metrics first: records without an answer are dropped on resume, an answer whose
        # records are missing could not be told from one that had none.
        self.metrics.flush()
        self.store.append(prediction)
        return prediction
