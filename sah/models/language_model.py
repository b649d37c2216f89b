"""A loaded model: prefill a context once, then answer any number of questions about it."""

import inspect
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.reconstruction import Reconstructed, Reconstruction
from sah.attention.eviction.remembering import remembering
from sah.attention.eviction.witness import Witness, Witnessed
from sah.attention.native.indexer import switch_off
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill, reading
from sah.attention.session import AttentionSession
from sah.errors import NonFiniteLogits, TokenizerError
from sah.models.cache import PassThroughCache, RewindableCache
from sah.models.decoding import Answer, AnswerInProgress
from sah.models.generation import TokenChooser
from sah.models.loading.weights import embedding_size
from sah.models.prompts import PromptEncoder
from sah.models.rope import LengthDependentRope
from sah.models.thoughts import Thinking

# Bounds the memory of a continuation's logits: 80 MB for 128 tokens of a large vocabulary.
_LOSS_CHUNK_TOKENS = 128

# About the most by which a request to repeat a chunk is longer than the chunk.
_REQUEST_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class PrefilledContext:
    """A context's keys and values, ready for a question."""

    cache: RewindableCache
    length: int
    seconds: float
    prefill_density: float = 1.0
    """Share of the visible pairs of query and key that the context's queries read."""
    witnessed: Mapping[int, Witnessed] = field(default_factory=dict)
    """What the prefill was asked to remember, by layer."""
    reconstructions: dict[Reconstruction, Reconstructed] = field(default_factory=dict)
    """Of the passes in which the model repeated the context; filled when an arm needs one."""
    kept: Mapping[int, KeptKeys] | None = None
    """What an arm that evicts or rewrites keeps of it, by layer; None in other arms."""


@dataclass(frozen=True, kw_only=True)
class AfterQuestion:
    """Eviction and rewriting once a dense question has been read."""

    witness: Witness
    """What is remembered of context and question."""
    keep: Callable[[PrefilledContext], PrefilledContext]
    """From context and question to what the answer is decoded from."""


class LanguageModel:
    """A causal language model of transformers with its prompt encoder."""

    def __init__(self, model: Any, prompts: PromptEncoder) -> None:
        self.model: Any = model.eval()
        self.prompts = prompts
        self.device: torch.device = model.device
        self.eos_token_ids = _eos_token_ids(model, prompts.tokenizer)
        self.rope = LengthDependentRope(model)
        self.has_indexer = switch_off(model)
        """Whether the model has its own indexer; it is off unless the attention is by it."""
        self.reads_single_tokens = False
        """Whether the model continues its cache correctly only by one token at a time."""
        self.decodes_alone = False
        """Whether the rows of a batch would not have the logits that they have alone."""
        self._parameters = frozenset(inspect.signature(model.forward).parameters)

    @property
    def commit(self) -> str | None:
        """Commit of the weights on the Hub; None if they are from elsewhere."""
        return getattr(self.model.config, "_commit_hash", None)

    @property
    def is_usable(self) -> bool:
        """Whether it can still be called; not if a process with a part of its weights has ended."""
        processes = getattr(self.model, "processes", None)
        return processes is None or not processes.is_closed

    @property
    def cache_bytes_per_token(self) -> int | None:
        """Bytes that each token adds to the cache, in the layers that keep all keys.

        None if there is no such layer, as in a model with sliding windows only.
        """
        return self._cache_of_one.bytes_per_token() or None

    def cache_bytes(self, tokens: int) -> int:
        """Return the size of a context's cache: keys, values and other states of all layers."""
        return self._cache_of_one.bytes_at(tokens)

    @cached_property
    def _cache_of_one(self) -> RewindableCache:
        """A cache that holds one token, to be measured: configurations do not tell its size."""
        cache = RewindableCache(self.model.config, capacity=1)
        with torch.inference_mode():
            self.forward([0], cache, logits=1)
        return cache

    @torch.inference_mode()
    def prefill(
        self,
        context_ids: Sequence[int],
        *,
        reserve_tokens: int,
        witness: Witness | None = None,
        sparse: SparsePrefill | OwnPrefill | None = None,
    ) -> PrefilledContext:
        """Prefill a context, and keep its cache.

        Args:
            context_ids: may be empty.
            reserve_tokens: room for a question and its answer after the context; longer ones
                work, but cost a copy of the cache.
            witness: what to remember for evictors and rewriters; it changes no output. None:
                nothing.
            sparse: what the context's queries read; None: everything, with the model's own
                attention.
        """
        started = time.perf_counter()
        spare = repetition_room(witness, len(context_ids))
        cache = RewindableCache(self.model.config, len(context_ids) + reserve_tokens, spare)
        witnessed: Mapping[int, Witnessed] = {}
        read = None
        if context_ids:
            with ExitStack() as stack:
                if sparse is not None:
                    read = stack.enter_context(reading(self.model, sparse))
                # Wraps whatever attention function is in place, so it comes second.
                if witness is not None:
                    witnessed = stack.enter_context(remembering(self.model, witness))
                self._last_logits(list(context_ids), cache)
            self.synchronize()
        cache.mark()
        return PrefilledContext(
            cache=cache,
            length=len(context_ids),
            seconds=time.perf_counter() - started,
            prefill_density=1.0 if read is None else read.density(),
            witnessed=witnessed,
        )

    @torch.inference_mode()
    def answer(
        self,
        context: PrefilledContext,
        question_ids: Sequence[int],
        *,
        session: AttentionSession,
        sampler: TokenChooser,
        max_new_tokens: int,
        thinking: Thinking | None = None,
        dense_question: bool = False,
        after_question: AfterQuestion | None = None,
        between_tokens: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Answer one question and rewind the cache to the context.

        Args:
            context: a prefilled context; unchanged afterwards.
            question_ids: at least one token.
            session: its attention computes the question and every decoded token.
            sampler: chooses the tokens.
            max_new_tokens: at least 1.
            thinking: how a thought before the answer is recognised; None takes all for the answer.
            dense_question: compute the question with the model's own attention.
            after_question: with a dense question, what is kept of context and question together;
                None keeps everything.
            between_tokens: called before every decode step; may raise to stop the answer.
        """
        started = time.perf_counter()
        answer = AnswerInProgress(
            sampler, limit=max_new_tokens, eos_token_ids=self.eos_token_ids, thinking=thinking
        )
        try:
            held, logits = self.read_question(
                context,
                question_ids,
                session=session,
                dense_question=dense_question,
                after_question=after_question,
            )
            with session.attached(self.model):
                while answer.advance(logits):
                    between_tokens()
                    logits = self._last_logits(answer.tokens[-1:], held.cache)
        finally:
            context.cache.rewind()
        return answer.answer(time.perf_counter() - started)

    @torch.inference_mode()
    def read_question(
        self,
        context: PrefilledContext,
        question_ids: Sequence[int],
        *,
        session: AttentionSession,
        dense_question: bool = False,
        after_question: AfterQuestion | None = None,
    ) -> tuple[PrefilledContext, Tensor]:
        """Append a question to the cache of its context; arguments as in `answer`.

        Returns:
            What the answer is decoded from, whose cache shares layers with the context's, and the
            logits of the question's last token, [1, vocabulary].
        """
        if after_question is not None:
            assert dense_question, "keys are evicted after a dense question only"
            both, logits = self.prefill_question(
                context, question_ids, witness=after_question.witness
            )
            return after_question.keep(both), logits
        with nullcontext() if dense_question else session.attached(self.model, is_question=True):
            return context, self._last_logits(list(question_ids), context.cache)

    @torch.inference_mode()
    def prefill_question(
        self, context: PrefilledContext, question_ids: Sequence[int], *, witness: Witness
    ) -> tuple[PrefilledContext, Tensor]:
        """Append a question with the model's own attention; remember its queries, too.

        Args:
            context: prefilled with a witness that asks for at least as much. Its cache holds the
                question until the caller rewinds it.
            question_ids: at least one token.
            witness: what to remember of context and question together; it changes no output.

        Returns:
            Context and question as one context, whose cache shares the given one's layers, and the
            logits of the last token, [1, vocabulary].
        """
        started, cache, witnessed = time.perf_counter(), context.cache, context.witnessed
        # What is remembered is of one forward pass, which reads one token in some models.
        single = self.reads_single_tokens and cache.length > 0
        size = 1 if single else len(question_ids)
        for begin in range(0, len(question_ids), size):
            before = witnessed if cache.length else None
            with remembering(self.model, witness, before) as witnessed:
                logits = self._last_logits(list(question_ids[begin : begin + size]), cache)
        self.synchronize()
        both = PrefilledContext(
            cache=cache.marked_here(),
            length=cache.length,
            seconds=time.perf_counter() - started,
            witnessed=witnessed,
        )
        return both, logits

    @torch.inference_mode()
    def continuation_loss(
        self,
        context: PrefilledContext,
        token_ids: Sequence[int],
        *,
        session: AttentionSession,
        between_chunks: Callable[[], None] = lambda: None,
    ) -> tuple[float, float]:
        """Measure how well the model predicts a given continuation, and rewind the cache.

        The first token does not count: it is predicted by the context's last token, which was
        computed in the prefill.

        Args:
            context: a prefilled context; unchanged afterwards.
            token_ids: the continuation, at least two tokens.
            session: its attention computes every token of the continuation.
            between_chunks: called before every forward pass; may raise to stop.

        Returns:
            The mean next-token loss in nats, and the time it took in seconds.

        Raises:
            NonFiniteLogits: if the loss is NaN or infinite.
        """
        if len(token_ids) < 2:
            raise ValueError(f"a continuation needs at least two tokens, got {len(token_ids)}")
        started = time.perf_counter()
        total = 0.0
        try:
            with session.attached(self.model):
                for begin in range(0, len(token_ids) - 1, _LOSS_CHUNK_TOKENS):
                    between_chunks()
                    ids = list(token_ids[begin : begin + _LOSS_CHUNK_TOKENS + 1])
                    logits = self.forward(ids[:-1], context.cache, logits=len(ids) - 1)
                    targets = torch.tensor(ids[1:], device=logits.device)  # the next tokens
                    total += cross_entropy(logits[0].float(), targets, reduction="sum").item()
        finally:
            context.cache.rewind()
        if not math.isfinite(total):
            raise NonFiniteLogits(f"the loss of the continuation is not finite ({total} nats)")
        return total / (len(token_ids) - 1), time.perf_counter() - started

    def decode_rows(self, token_ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Read the last token of each row of a batch; return the logits, [B, vocabulary].

        The attention function in place gets the new keys and values only, and has the others.

        Args:
            token_ids: one for each row.
            positions: of these tokens in their sequences.
        """
        self._check_ids(token_ids)
        logits: Tensor = self.model(
            input_ids=torch.tensor(token_ids, device=self.device)[:, None],
            position_ids=torch.tensor(positions, device=self.device)[:, None],
            past_key_values=PassThroughCache(),
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def read_rows(self, token_ids: Sequence[Sequence[int]], positions: Sequence[int]) -> Tensor:
        """Read new tokens of several rows, one row after the other as in a single sequence.

        The attention function in place gets them so, too, and has the other keys and values.

        Args:
            token_ids: of each row, at least one.
            positions: of each row's first new token in its sequence.

        Returns:
            The logits of each row's last token, [B, vocabulary].
        """
        ids = [token for of_row in token_ids for token in of_row]
        self._check_ids(ids)
        own = [
            position
            for of_row, begin in zip(token_ids, positions, strict=True)
            for position in range(begin, begin + len(of_row))
        ]
        ends = list(itertools.accumulate(map(len, token_ids)))
        logits: Tensor = self.model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([own], device=self.device),
            past_key_values=PassThroughCache(),
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=self.device) - 1,
        ).logits
        return logits[0]

    def accepts(self, argument: str) -> bool:
        """Whether the model's forward pass has an argument of this name."""
        return argument in self._parameters

    def forward(self, ids: Sequence[int], cache: RewindableCache | None, *, logits: int) -> Tensor:
        """Read tokens; return the last ones' logits, [1, logits, vocabulary].

        Args:
            ids: at least one token.
            cache: holds the tokens before these, and is extended; None for a sequence without a
                cache.
            logits: number of tokens whose logits are returned.

        Raises:
            TokenizerError: if the model's embedding lacks a token.
        """
        self._check_ids(ids)
        begin = 0 if cache is None else cache.length
        if self.reads_single_tokens and begin > 0 and len(ids) > 1:
            steps = [self.forward([token], cache, logits=1) for token in ids]
            return torch.cat(steps, dim=1)[:, -logits:]
        end = begin + len(ids)
        # Not every architecture derives the positions from its cache.
        positions = torch.arange(begin, end, device=self.device)[None]
        arguments = {"position_ids": positions, "logits_to_keep": logits}
        with self.rope.of_length(end if cache is None else max(cache.capacity, end)):
            output: Tensor = self.model(
                input_ids=torch.tensor([list(ids)], device=self.device),
                past_key_values=cache,
                use_cache=cache is not None,
                **{name: arguments[name] for name in arguments.keys() & self._parameters},
            ).logits
        if cache is not None:
            cache.length = end
        return output[:, -logits:]

    def _last_logits(self, ids: list[int], cache: RewindableCache) -> Tensor:
        """Append tokens to the cache; return the logits of the last one, [1, vocabulary]."""
        return self.forward(ids, cache, logits=1)[:, -1]

    @cached_property
    def _embedding_size(self) -> int:
        return embedding_size(self.model)

    def _check_ids(self, ids: Sequence[int]) -> None:
        # On a GPU such an id would fail an assertion that ends all work of the process.
        size = self._embedding_size
        if min(ids) >= 0 and max(ids) < size:
            return
        wrong = next(token for token in ids if not 0 <= token < size)
        text = self.prompts.tokenizer.convert_ids_to_tokens(wrong) if wrong >= 0 else None
        raise TokenizerError(
            f"token {wrong} ({text!r}) is not in the model's embedding of {size} tokens: the "
            "tokenizer belongs to another model, or has tokens that this one was not trained with; "
            "leave them out of the prompt"
        )

    def synchronize(self) -> None:
        """Wait for the device, so that times are of what was computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def repetition_room(witness: Witness | None, length: int) -> int:
    """Return the room in a context's cache for the part that the model repeats at a time (KVzip).

    Args:
        witness: what an evictor or rewriter needs; None: nothing.
        length: tokens of the context.
    """
    passes = () if witness is None else witness.reconstructions
    repeated = max((min(one.chunk, length) for one in passes), default=0)
    return repeated + _REQUEST_TOKENS if repeated else 0


def _eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer: the generation config's, else the tokenizer's."""
    eos = model.generation_config.eos_token_id if model.generation_config else None
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)
