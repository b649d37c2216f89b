"""Checks that a loaded model can be measured, on about a hundred tokens."""

# B batch, H query heads, Q queries, K keys, N tokens, V vocabulary

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention
from sah.attention.layers import (
    attention_layers,
    full_attention_layers,
    has_chunks,
    indexed_layers,
    selecting_layers,
)
from sah.attention.native.indexer import switched_on
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError, category
from sah.models.batch import Row, answer_rows
from sah.models.cache import RewindableCache
from sah.models.language_model import LanguageModel

_CONTEXT, _QUESTION, _STEPS = 56, 24, 4
_TOKENS = _CONTEXT + _QUESTION + _STEPS
_WINDOW = 20

# Differences of logits, relative to their spread over the vocabulary. In half precision the order
# of additions alone makes a few per cent, as rounding does in a quantised model, and a mixture of
# experts may choose another expert for a token, so that the median token decides there.
_TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-4}
_HALF_PRECISION = 0.2

# What a model's code raises where it does not fit this use; other errors are the machine's.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

_TEXT = (
    "The grass is green, the sky is blue and the sun is yellow. In 1969 a crew of three flew to "
    "the moon and back; it took them eight days, 3 hours and 18 minutes. What did they bring home? "
)


def check_model(model: LanguageModel) -> None:
    """Check that this framework measures a model correctly, whatever its architecture.

    Sets `reads_single_tokens` of a model that needs it, such as Jamba, whose state-space layers
    continue from their state by a single token only, and `decodes_alone` of one whose answers
    cannot be decoded in batches.

    Raises:
        ConfigurationError: naming what is wrong.
    """
    for _ in checks(model):
        pass


@torch.inference_mode()
def checks(model: LanguageModel) -> Iterator[tuple[str, str]]:
    """Run the checks one after the other.

    Yields:
        The name of each check that passed, and what it found.

    Raises:
        ConfigurationError: at the first check that fails, naming what is wrong.
    """
    with _naming(model):
        _check_structure(model)
        ids = _token_ids(model)
        whole = _whole(model, ids)
        if model.has_indexer:
            # First, as the others need it off.
            yield "own indexer", _compare_indexer(model, ids)
        cache = _read_context(model, ids, whole)
        _check_calls(model, ids)
        yield "positions", _compare_pieces(model, ids, whole, cache)
        yield "full budget", _compare_full_budget(model, ids, whole)
        if full_attention_layers(model.model.config):
            yield "density", _compare_density(model, ids)
        yield "batches", _compare_rows(model, ids, cache)


def _check_structure(model: LanguageModel) -> None:
    """Refuse what needs no forward pass to be recognised."""
    config = model.model.config
    if config.is_encoder_decoder:
        raise ConfigurationError("it is an encoder-decoder model")
    if not model.accepts("past_key_values"):
        raise ConfigurationError("it has no key-value cache that a question could continue")
    try:
        has_attention = bool(attention_layers(config))
    except AttributeError as error:
        raise ConfigurationError(f"its configuration does not list its layers: {error}") from error
    if not has_attention:
        raise ConfigurationError("none of its layers has attention")
    if selecting := selecting_layers(config):
        raise ConfigurationError(
            f"its layers of the kind {' and '.join(selecting)} select or compress keys in a way "
            "that cannot be switched off"
        )


def _token_ids(model: LanguageModel) -> list[int]:
    """Encode a text of numbers and words, repeated to the length that the checks need."""
    tokenizer: Any = model.prompts.tokenizer
    ids = list(tokenizer(_TEXT, add_special_tokens=False).input_ids)
    return (ids * (_TOKENS // len(ids) + 1))[:_TOKENS]


def _whole(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Return the model's own logits of one forward pass over all tokens, [N, V]."""
    cache = RewindableCache(model.model.config, len(ids))
    logits = _forward(model, ids, cache)
    if not torch.isfinite(logits).all():
        raise ConfigurationError(
            f"its logits are not finite in {model.model.dtype}; try another model.dtype"
        )
    return logits


def _read_context(model: LanguageModel, ids: Sequence[int], whole: Tensor) -> RewindableCache:
    """Return the cache of the context, which must not depend on the tokens after it."""
    cache = RewindableCache(model.model.config, len(ids))
    logits = _forward(model, ids[:_CONTEXT], cache)
    if relative_difference(model, logits, whole[:_CONTEXT]) > tolerance(model):
        raise ConfigurationError(
            "a token's logits depend on the tokens after it, so it is an encoder or has another "
            "attention that is not causal"
        )
    cache.mark()
    return cache


def _check_calls(model: LanguageModel, ids: Sequence[int]) -> None:
    """Check that each attention layer calls the attention function once, with its own number."""
    session = _Noting(_recent(len(ids)), seed=0)
    try:
        with session.attached(model.model):
            _forward(model, ids, RewindableCache(model.model.config, len(ids)))
    except ConfigurationError:
        # Such as code that does not understand the mask made for the function.
        if session.numbers:
            raise
    if not session.numbers:
        raise ConfigurationError(
            "its attention does not go through transformers' AttentionInterface, so that it "
            "cannot be replaced by a sparse one"
        )
    expected = sorted(attention_layers(model.model.config))
    if session.numbers != expected:
        raise ConfigurationError(
            f"its attention layers are {expected} in its configuration, but call themselves "
            f"{session.numbers} in one forward pass"
        )


def _compare_indexer(model: LanguageModel, ids: Sequence[int]) -> str:
    """Check that the model's own indexer, run by the session, selects as the model's own code."""
    with switched_on(model.model):
        own = _forward(model, ids, RewindableCache(model.model.config, len(ids)))
    indexer = _Indexer()
    session = AttentionSession(SparseAttention(name="gate", maskers={"indexer": indexer}), seed=0)
    with session.attached(model.model):
        logits = _forward(model, ids, RewindableCache(model.model.config, len(ids)))
    unknown = indexed_layers(model.model.config) - indexer.layers
    if unknown:
        raise ConfigurationError(
            f"the indexer of its layers {sorted(unknown)} hands its selection over in a "
            "way that is not understood, so that it can be neither switched off nor measured"
        )
    distance = relative_difference(model, logits, own)
    if distance > tolerance(model):
        raise ConfigurationError(
            "attention by the selection of its own indexer differs from the model's own code by "
            f"{distance:.2g} of the logits' spread"
        )
    return f"selects as in the model's own code (relative difference {distance:.1g})"


def _compare_pieces(
    model: LanguageModel, ids: Sequence[int], whole: Tensor, cache: RewindableCache
) -> str:
    """Check that context, question and answer in pieces have the logits of one forward pass."""
    pieces = _continued(model, ids, cache)
    cache.rewind()
    if relative_difference(model, pieces, whole[_CONTEXT:]) > tolerance(model):
        model.reads_single_tokens = True
        pieces = _continued(model, ids, cache)
        cache.rewind()
    distance = relative_difference(model, pieces, whole[_CONTEXT:])
    if distance > tolerance(model):
        raise ConfigurationError(
            "the logits of a question after a cached context differ from those of the whole "
            f"prompt in one pass by {distance:.2g} of their spread"
        )
    # Not bit for bit: on a GPU the sums over experts have no fixed order.
    if relative_difference(model, _continued(model, ids, cache), pieces) > tolerance(model):
        raise ConfigurationError(
            "the same question about one context has other logits the second time: its cache "
            "does not rewind"
        )
    return f"cached context and whole prompt agree (relative difference {distance:.1g})"


def _compare_full_budget(model: LanguageModel, ids: Sequence[int], whole: Tensor) -> str:
    """Check that sparse attention that reads every key is the model's own attention."""
    logits, density = _read_sparsely(model, ids, tokens=len(ids))
    distance = relative_difference(model, logits, whole[_CONTEXT:])
    if distance > tolerance(model):
        raise ConfigurationError(
            "sparse attention that reads every key differs from the model's own by "
            f"{distance:.2g} of the logits' spread"
        )
    if density not in (1, None):
        raise ConfigurationError(f"the density of reading every key is {density:.4f} instead of 1")
    return f"equals dense attention (relative difference {distance:.1g})"


def _compare_density(model: LanguageModel, ids: Sequence[int]) -> str:
    """Check the density of a window of keys against one counted by hand."""
    _, measured = _read_sparsely(model, ids, tokens=_WINDOW)
    by_hand = [_WINDOW / seen for seen in range(_CONTEXT + 1, len(ids) + 1)]
    right = sum(by_hand) / len(by_hand)
    if measured is None or abs(measured - right) > 1e-5:
        raise ConfigurationError(
            f"the density of a window of {_WINDOW} keys is {measured or 0:.4f} where {right:.4f} "
            "is right"
        )
    return f"{measured:.3f} with a window of {_WINDOW} keys, as by hand"


def _compare_rows(model: LanguageModel, ids: Sequence[int], cache: RewindableCache) -> str:
    """Find out whether the rows of a batch have the logits that they have alone."""
    model.decodes_alone = (
        not model.accepts("position_ids")
        or not cache.has_rows
        # They are cached like sliding windows, and only the model's own mask tells the difference.
        or has_chunks(model.model.config)
        or model.has_indexer
        or model.rope.depends_on_length
    )
    if not model.decodes_alone:
        lengths = _CONTEXT, _CONTEXT // 2
        alone = torch.cat([_decoded(model, ids, [length]) for length in lengths])
        try:
            distance = relative_difference(model, _decoded(model, ids, lengths), alone)
        except _FAILURES as error:
            if category(error) != "unknown":
                raise
            distance = math.inf
        if distance <= tolerance(model):
            return f"rows have the logits that they have alone (relative difference {distance:.1g})"
        model.decodes_alone = True
    return "not possible with this model: its answers are decoded one by one"


def _decoded(model: LanguageModel, ids: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Decode a batch of rows with contexts of these lengths; return their logits, [N, V]."""
    rows, choosers = [], []
    for length in lengths:
        session = AttentionSession(DenseAttention(), seed=0)
        session.begin_context(length)
        end = length + _QUESTION
        chooser = _Given(ids[end : end + _STEPS])
        choosers.append(chooser)
        rows.append(
            Row(
                example_id="gate",
                context=model.prefill(ids[:length], reserve_tokens=_QUESTION + _STEPS),
                question_ids=ids[length:end],
                session=session,
                sampler=chooser,
                max_new_tokens=_STEPS,
            )
        )
    answer_rows(model, rows)
    return torch.cat([logits for chooser in choosers for logits in chooser.logits])


class _Given:
    """Chooses given tokens, and notes the logits before each."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.logits: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        self.logits.append(logits.clone())
        return self.tokens[len(self.logits) - 1]


def _read_sparsely(
    model: LanguageModel, ids: Sequence[int], *, tokens: int
) -> tuple[Tensor, float | None]:
    """Read the tokens after the context with each query's most recent keys only.

    Returns:
        Their logits, [N, V], and the density; None if the model has local layers only.
    """
    cache = RewindableCache(model.model.config, len(ids))
    _forward(model, ids[:_CONTEXT], cache)
    session = AttentionSession(_recent(tokens), seed=0)
    session.begin_context(_CONTEXT)
    session.begin_example("gate")
    with session.attached(model.model):
        logits = _continued(model, ids, cache)
    has_sparse_layers = full_attention_layers(model.model.config)
    return logits, session.density() if has_sparse_layers else None


def _recent(tokens: int) -> SparseAttention:
    return SparseAttention(name="gate", maskers={"recent": _Recent(tokens=tokens)})


@dataclass(frozen=True, kw_only=True)
class _Recent:
    """Selects each query's most recent keys; those of the checks if there are enough."""

    tokens: int

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        return mask.add(inputs.visible_rank > inputs.visible_count - self.tokens)


class _Indexer:
    """Selects what the model's own indexer selects, and notes the layers that have one."""

    uses_indexer: ClassVar[bool] = True

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        assert inputs.indexed is not None
        self.layers.add(inputs.layer_idx)
        return mask.add(inputs.indexed)


class _Noting(AttentionSession):
    """Notes which layers call the attention function, by the numbers they give themselves."""

    def __init__(self, attention: SparseAttention, *, seed: int) -> None:
        super().__init__(attention, seed=seed)
        self.numbers: list[Any] = []

    def _forward(self, module: Any, *arguments: Any, **keywords: Any) -> tuple[Tensor, None]:
        self.numbers.append(getattr(module, "layer_idx", None))
        return super()._forward(module, *arguments, **keywords)


def _continued(model: LanguageModel, ids: Sequence[int], cache: RewindableCache) -> Tensor:
    """Feed the question in one pass, then single tokens; return their logits, [N, V]."""
    pieces = [ids[_CONTEXT : _CONTEXT + _QUESTION], *([token] for token in ids[-_STEPS:])]
    return torch.cat([_forward(model, piece, cache) for piece in pieces])


def relative_difference(model: LanguageModel, logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a token's logits, relative to their spread.

    In half precision, and of a quantised model, it is the median token's. Adding a constant to
    all logits changes nothing that is measured, so they are centred.
    """
    spread = expected.double() - expected.double().mean(-1, keepdim=True)
    found = logits.double() - logits.double().mean(-1, keepdim=True)
    relative = (found - spread).norm(dim=-1) / spread.norm(dim=-1)
    return float(relative.max() if _is_exact(model) else relative.median())


def _is_exact(model: LanguageModel) -> bool:
    # Quantisation may round a pass as a whole: LLM.int8 chooses its columns over all tokens.
    quantised = getattr(model.model.config, "quantization_config", None) is not None
    return model.model.dtype in _TOLERANCE and not quantised


def tolerance(model: LanguageModel) -> float:
    """Return the largest `relative_difference` that rounding may explain."""
    return _TOLERANCE[model.model.dtype] if _is_exact(model) else _HALF_PRECISION


def _forward(model: LanguageModel, ids: Sequence[int], cache: RewindableCache) -> Tensor:
    """Append tokens to the cache; return their logits, [N, V].

    Raises:
        ConfigurationError: if the model's own code fails on a cache that grows in pieces.
    """
    try:
        return model.forward(ids, cache, logits=len(ids))[0]
    except _FAILURES as error:
        if category(error) != "unknown":
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConfigurationError(
            f"its code fails where a question continues a cached context ({type(error).__name__}: "
            f"{first})"
        ) from error


@contextmanager
def _naming(model: LanguageModel) -> Iterator[None]:
    """Say which model a problem is of.

    Raises:
        ConfigurationError: with the class and type of the model before the problem.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{type(model.model).__name__} (model type {model.model.config.model_type!r}) cannot "
            f"be measured: {error}"
        ) from error
