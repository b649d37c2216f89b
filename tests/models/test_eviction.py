"""A compacted cache answers like the whole cache of which only the kept keys are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from batches import answered_together
from jaxtyping import Bool
from torch import Tensor
from torch.testing import assert_close
from zoo import small_model

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.evictors.knorm import KNorm
from sah.evictors.snapkv import SnapKV
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.sink import Sink
from sah.metric_logging.metrics import output_error
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

CONTEXT = [1 + (7 * n) % 390 for n in range(90)]
QUESTION = [5 + (11 * n) % 380 for n in range(12)]
WITNESS = Witness(last_queries=16, received=True)


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Keep more keys in one head than in the other, and more in later layers."""

    witness: ClassVar = Witness()

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        place = torch.arange(layer.length)
        return torch.stack([place % (2 + layer.layer_idx) == 0, place % 5 == 1]).unsqueeze(0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The reference: read only given keys of the whole context, and all keys after it."""

    alive: Any
    """By layer."""

    def __hash__(self) -> int:
        return 0

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        alive = self.alive[inputs.layer_idx].repeat_interleave(inputs.group_size, 1).unsqueeze(2)
        after = inputs.key.shape[2] - alive.shape[-1]
        readable = torch.nn.functional.pad(alive, (0, after), value=True)
        return mask.add(readable.expand(mask.selected.shape))


class Logits:
    """A greedy sampler that records the logits it is given, or follows given tokens."""

    def __init__(self, tokens: Sequence[int] | None = None) -> None:
        self.tokens = tokens
        self.seen: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        self.seen.append(logits.clone())
        return int(logits.argmax()) if self.tokens is None else self.tokens[len(self.seen) - 1]


def answered(
    model: LanguageModel,
    context: PrefilledContext,
    session: AttentionSession,
    tokens: Sequence[int] | None = None,
    question: Sequence[int] = QUESTION,
) -> tuple[list[int], Tensor]:
    session.begin_example("one")
    sampler = Logits(tokens)
    answer = model.answer(context, question, session=session, sampler=sampler, max_new_tokens=10)
    return answer.token_ids, torch.cat(sampler.seen)


def evicting(evictor: Any, **options: Any) -> SparseAttention:
    return SparseAttention(name="mine", evict={"mine": evictor}, **options)


def begun(
    model: LanguageModel, attention: SparseAttention, **options: Any
) -> tuple[PrefilledContext, PrefilledContext, AttentionSession]:
    """Return the shared context, what the arm keeps of it, and the arm's session."""
    context = model.prefill(CONTEXT, reserve_tokens=30, witness=WITNESS)
    own = evicted(context, attention, model.model.config, seed=0)
    session = AttentionSession(attention, seed=0, **options)
    session.begin_context(own.length, own.kept)
    return context, own, session


def alive(own: PrefilledContext) -> dict[int, Tensor]:
    """Return which keys of the context each layer keeps."""
    assert own.kept is not None
    marks = {}
    for layer, kept in own.kept.items():
        marks[layer] = torch.zeros(kept.key.shape[:3], dtype=torch.bool)
        marks[layer].scatter_(2, kept.position, True)
    return marks


EVICTORS = [KNorm(fraction=0.3), SnapKV(tokens=20, window=8), Ragged()]
SELECTING = {"sink": Sink(tokens=2), "local": Local(tokens=8), "best": OracleTopK(tokens=9)}


@pytest.mark.parametrize("evictor", EVICTORS, ids=lambda one: type(one).__name__)
def test_a_compacted_arm_answers_as_if_evicted_keys_were_masked(
    evictor: Any, tiny: LanguageModel
) -> None:
    context, own, session = begun(tiny, evicting(evictor))
    tokens, logits = answered(tiny, own, session)
    reference = SparseAttention(name="masked", maskers={"alive": Reading(alive=alive(own))})
    masked = AttentionSession(reference, seed=0)
    masked.begin_context(context.length)
    _, expected = answered(tiny, context, masked, tokens)
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    read, expected_read = session.keys_read(), masked.keys_read()
    assert read is not None
    assert expected_read is not None
    assert read.density == pytest.approx(expected_read.density, rel=1e-6)
    assert read.rows_read == pytest.approx(expected_read.rows_read, rel=1e-6)
    assert 0.1 < read.density < 0.6


@pytest.mark.parametrize("evictor", EVICTORS, ids=lambda one: type(one).__name__)
def test_maskers_select_among_what_is_kept(evictor: Any, tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, evicting(evictor, maskers=SELECTING))
    tokens, logits = answered(tiny, own, session)

    @dataclass(frozen=True, kw_only=True)
    class Selecting(Reading):
        """Apply the maskers to the kept keys, found in the whole context."""

        def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
            readable = super().__call__(inputs, mask).selected
            rank, total = readable.cumsum(-1), readable.sum(-1, keepdim=True)
            fixed = readable & ((rank <= 2) | (rank > total - 8))
            scores = inputs.scores.masked_fill(~readable | fixed, -torch.inf)
            best = scores.topk(9, dim=-1)
            chosen = torch.zeros_like(readable).scatter_(-1, best.indices, best.values > -torch.inf)
            return mask.add(fixed | chosen)

    reference = SparseAttention(name="masked", maskers={"alive": Selecting(alive=alive(own))})
    masked = AttentionSession(reference, seed=0)
    masked.begin_context(context.length)
    _, expected = answered(tiny, context, masked, tokens)
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert session.density() == pytest.approx(masked.density(), rel=1e-6)


@pytest.mark.parametrize("evictor", [KNorm(fraction=1.0), SnapKV(tokens=90, window=8)])
def test_keeping_everything_is_dense_token_for_token(evictor: Any, tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, evicting(evictor))
    tokens, logits = answered(tiny, own, session)
    dense = AttentionSession(DenseAttention(), seed=0)
    dense.begin_context(context.length)
    expected_tokens, expected = answered(tiny, context, dense)
    assert tokens == expected_tokens
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert session.density() == 1.0


def test_remembering_changes_no_bit_of_the_prefill(tiny: LanguageModel) -> None:
    plain = tiny.prefill(CONTEXT, reserve_tokens=30)
    watched = tiny.prefill(CONTEXT, reserve_tokens=30, witness=WITNESS)
    for one, other in zip(plain.cache.layers, watched.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert plain.witnessed == {}
    assert watched.witnessed.keys() == {0, 1}


def test_received_attention_is_the_sum_over_all_queries(tiny: LanguageModel) -> None:
    context = tiny.prefill(
        CONTEXT, reserve_tokens=1, witness=Witness(last_queries=90, received=True)
    )
    for number, layer in enumerate(context.cache.layers):
        seen = context.witnessed[number]
        key = layer.keys.repeat_interleave(2, dim=1)
        scores = seen.queries @ key.transpose(-1, -2) * seen.scaling
        causal = torch.ones(90, 90, dtype=torch.bool).tril()
        expected = scores.masked_fill(~causal, -torch.inf).softmax(-1).sum(2)
        assert seen.received is not None
        assert_close(seen.received, expected, atol=1e-4, rtol=1e-4)


def test_arms_take_turns_on_one_prefill(tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, evicting(KNorm(fraction=0.3)))
    first = answered(tiny, own, session)
    dense = AttentionSession(DenseAttention(), seed=0)
    dense.begin_context(context.length)
    before = answered(tiny, context, dense)
    assert answered(tiny, own, session)[0] == first[0]
    after = answered(tiny, context, dense)
    assert torch.equal(before[1], after[1])


def test_dense_layers_keep_their_whole_cache(tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, evicting(KNorm(fraction=0.2), dense_layers=[0]))
    assert own.kept is not None
    assert own.kept.keys() == {1}
    assert own.cache.layers[0] is context.cache.layers[0]
    whole, held = context.cache.bytes_held(), own.cache.bytes_held()
    assert held == whole // 2 + whole // 2 * 18 // 90
    answered(tiny, own, session)
    read = session.keys_read()
    assert read is not None
    assert read.dense_queries == read.sparse_queries


def test_padding_of_ragged_heads_is_not_counted_as_held(tiny: LanguageModel) -> None:
    context, own, _ = begun(tiny, evicting(Ragged()))
    row = context.cache.bytes_held() // (90 * 2 * 2)
    assert own.cache.bytes_held() == (45 + 18 + 30 + 18) * row


def test_questions_of_a_batch_get_the_answers_of_one_by_one(tiny: LanguageModel) -> None:
    _, own, session = begun(tiny, evicting(KNorm(fraction=0.3)))
    asked = [QUESTION, QUESTION[:5], QUESTION[3:]]
    alone = [answered(tiny, own, session, question=question)[0] for question in asked]
    tokens, sessions = answered_together(tiny, own, session, asked)
    assert tokens == alone
    assert sessions[0].density() is not None


def test_error_is_measured_against_the_whole_context(tiny: LanguageModel) -> None:
    """An evicting layer's error is that of a masker that reads the same keys."""
    from sah.attention.eviction.whole import whole

    errors: dict[str, list[float]] = {"evicted": [], "masked": []}

    def observer(name: str) -> Any:
        def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
            inputs, mask = whole(inputs, mask)
            if inputs.layer_idx == 0:
                errors[name] += output_error(inputs, mask, output).flatten().tolist()

        return observe

    context, own, session = begun(
        tiny, evicting(KNorm(fraction=0.3)), observers=(observer("evicted"),)
    )
    tokens, _ = answered(tiny, own, session)
    reference = SparseAttention(name="masked", maskers={"alive": Reading(alive=alive(own))})
    masked = AttentionSession(reference, seed=0, observers=(observer("masked"),))
    masked.begin_context(context.length)
    answered(tiny, context, masked, tokens)
    assert len(errors["evicted"]) > len(QUESTION)
    assert errors["evicted"] == pytest.approx(errors["masked"], rel=1e-3)
    assert min(errors["evicted"]) > 0.01


def test_without_a_context_nothing_is_evicted(tiny: LanguageModel) -> None:
    attention = evicting(KNorm(fraction=0.3))
    context = tiny.prefill([], reserve_tokens=30, witness=WITNESS)
    own = evicted(context, attention, tiny.model.config, seed=0)
    session = AttentionSession(attention, seed=0)
    session.begin_context(own.length, own.kept)
    answered(tiny, own, session)
    assert session.density() == 1.0


def test_a_cache_of_latents_is_refused() -> None:
    latent = small_model("deepseek_v3")
    model = LanguageModel(latent, PromptEncoder(tiny_tokenizer(), None))
    context = model.prefill(CONTEXT, reserve_tokens=0, witness=WITNESS)
    with pytest.raises(ConfigurationError, match=r"attends to 4 heads of dimension 24, but caches"):
        evicted(context, evicting(KNorm(tokens=5)), model.model.config, seed=0)
