"""What an arm keeps of a context: eviction and rewriting, and the bytes that it then holds."""

from collections.abc import Callable

from sah.attention import SparseAttention
from sah.attention.layers import indexed_layers
from sah.attention.session import AttentionSession
from sah.execution.experiment import Experiment
from sah.models.eviction import evicted, reconstruct
from sah.models.language_model import AfterQuestion, LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt


class Keeping:
    """Evicts and rewrites keys of one context, and accounts for it.

    At the context's end; with a dense question at the end of the question, of context and
    question together.
    """

    def __init__(self, experiment: Experiment, session: AttentionSession) -> None:
        """Keep what the experiment's attention says.

        Args:
            experiment: gives attention, protocol and seed.
            session: of the context, or of its one question; learns what is kept.
        """
        self.experiment = experiment
        self.session = session
        self.repeated_seconds = 0.0
        """Time in which the model repeated the present context; part of this arm's prefill."""
        self.repeated_seconds_saved = 0.0
        """Part of it that an arm before this one spent."""
        self._seconds = 0.0
        self._bytes = 0, 0
        self.indexer_bytes: dict[str, float] = {}
        """Bytes per key and layer that the model's own indexer caches, if the attention uses it."""

    def begin(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        prompt: EncodedPrompt,
        between_chunks: Callable[[], None] = lambda: None,
    ) -> PrefilledContext:
        """Begin the context; return it as this arm has it when it reads a question.

        Args:
            model: prefilled the context.
            context: shared with other arms, which use it in turn.
            prompt: its context is this one.
            between_chunks: called while the model repeats the context; may raise to stop.
        """
        own, self._seconds = context, 0.0
        self._reconstruct(model, context, prompt, between_chunks)
        if self.experiment.witness is not None and not self.is_after_question:
            own = self._kept(model, context)
            self._seconds = own.seconds
        self._begin(own, context)
        self._count_indexer(model, context)
        return own

    def _count_indexer(self, model: LanguageModel, context: PrefilledContext) -> None:
        attention = self.experiment.sparse_attention
        indexer_bytes = context.cache.indexer_bytes() if attention.uses_indexer else 0
        if not indexer_bytes or not isinstance(attention, SparseAttention):
            return
        held, dense = self._bytes
        self._bytes = held + indexer_bytes, dense
        keys = context.length * len(indexed_layers(model.model.config))
        self.indexer_bytes = dict.fromkeys(attention.maskers, indexer_bytes / keys)

    def _reconstruct(
        self,
        model: LanguageModel,
        context: PrefilledContext,
        prompt: EncodedPrompt,
        between_chunks: Callable[[], None],
    ) -> None:
        """Let the model repeat the context, unless an arm before this one did."""
        self.repeated_seconds = self.repeated_seconds_saved = 0.0
        if self.experiment.witness is None or context.length == 0:
            return
        for asked in sorted(self.experiment.witness.reconstructions, key=repr):
            is_known = asked in context.reconstructions
            if not is_known:
                reconstruct(model, context, prompt, asked, between_chunks=between_chunks)
            seconds = context.reconstructions[asked].seconds
            self.repeated_seconds += seconds
            self.repeated_seconds_saved += seconds if is_known else 0.0

    @property
    def is_after_question(self) -> bool:
        """Whether keys are evicted or rewritten once a question has been read, not before."""
        return self.experiment.witness is not None and self.experiment.protocol.question == "dense"

    def of_question(self, session: AttentionSession) -> "Keeping":
        """Return what keeps the keys of one question and its context, given its session."""
        other = Keeping(self.experiment, session)
        other._bytes, other.indexer_bytes = self._bytes, self.indexer_bytes
        return other

    def after_question(self, model: LanguageModel) -> AfterQuestion | None:
        """Return what is done once a dense question has been read; None: nothing."""
        if self.experiment.witness is None or not self.is_after_question:
            return None

        def keep(both: PrefilledContext) -> PrefilledContext:
            own = self._kept(model, both)
            self._begin(own, both)
            return own

        return AfterQuestion(witness=self.experiment.witness, keep=keep)

    def take_seconds(self) -> float:
        """Return the time of eviction at the context's end, once: the first answer has it."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    @property
    def share(self) -> float:
        """What the arm holds after the last eviction, as a share of the dense cache's bytes."""
        held, dense = self._bytes
        return held / dense if dense else 1.0

    def resident(self, model: LanguageModel, session: AttentionSession) -> float | None:
        """Return what the arm holds as a share of the dense cache's bytes.

        Of the context, and of the question if it was read before the eviction; if the arm evicts
        while decoding, of the whole sequence at the answer's end.
        """
        held, dense = self._bytes
        later = session.evicted_later()
        if later is not None:
            evicted_bytes, tokens = later
            dense = model.cache_bytes(tokens)
            held = dense - evicted_bytes
        if dense == 0:
            return None
        return (held + session.context_index_bytes()) / dense

    def _kept(self, model: LanguageModel, context: PrefilledContext) -> PrefilledContext:
        attention = self.experiment.sparse_attention
        assert isinstance(attention, SparseAttention)
        return evicted(context, attention, model.model.config, seed=self.experiment.seed)

    def _begin(self, own: PrefilledContext, whole: PrefilledContext) -> None:
        self._bytes = own.cache.bytes_held(), whole.cache.bytes_held()
        self.session.begin_context(own.length, own.kept)
