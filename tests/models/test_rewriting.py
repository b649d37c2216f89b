"""An arm that rewrites answers as if the shared cache had held the rewritten rows."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from batches import answered_together
from torch import Tensor
from torch.nn.functional import pad
from torch.testing import assert_close
from zoo import small_model

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention
from sah.attention.eviction.whole import whole
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.evictors.knorm import KNorm
from sah.evictors.wrappers.adakv import AdaKV
from sah.maskers.quest import Quest
from sah.metric_logging.metrics import output_error, recall
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer
from sah.rewriters.kivi import KIVI
from sah.rewriters.quantised import Quantised
from sah.rewriters.think import ThinK

CONTEXT = [1 + (7 * n) % 390 for n in range(90)]
QUESTION = [5 + (11 * n) % 380 for n in range(12)]

REWRITERS = {
    "kivi": KIVI(bits=2, residual=20),
    "quantised": Quantised(bits=2),
    "think": ThinK(fraction=0.3, window=16),
}
MASKERS: dict[str, dict[str, Any]] = {
    "none": {},
    "quest": {"quest": Quest(page_size=4, fraction=0.2)},
}


class Logits:
    """A greedy sampler that records the logits it is given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        self.seen.append(logits.clone())
        return int(logits.argmax())


def answered(
    model: LanguageModel, context: PrefilledContext, session: AttentionSession, **options: Any
) -> tuple[list[int], Tensor]:
    session.begin_example("one")
    sampler = Logits()
    answer = model.answer(
        context,
        options.get("question", QUESTION),
        session=session,
        sampler=sampler,
        max_new_tokens=10,
    )
    return answer.token_ids, torch.cat(sampler.seen)


def rewriting(rewriter: Any, **options: Any) -> SparseAttention:
    return SparseAttention(name="mine", rewrite={"mine": rewriter}, **options)


def begun(
    model: LanguageModel, attention: SparseAttention, **options: Any
) -> tuple[PrefilledContext, PrefilledContext, AttentionSession]:
    """Return the shared context, the arm's own one, and the arm's session."""
    context = model.prefill(CONTEXT, reserve_tokens=30, witness=attention.witness)
    own = evicted(context, attention, model.model.config, seed=0)
    session = AttentionSession(attention, seed=0, **options)
    session.begin_context(own.length, own.kept)
    return context, own, session


def session_of(attention: Any, context: PrefilledContext, **options: Any) -> AttentionSession:
    session = AttentionSession(attention, seed=0, **options)
    session.begin_context(context.length)
    return session


@torch.inference_mode()
def overwritten(
    model: LanguageModel, attention: SparseAttention
) -> tuple[PrefilledContext, Mapping[int, Tensor]]:
    """Return a whole context whose kept rows hold what the rewriter returns, and their marks."""
    context, own, _ = begun(model, attention)
    marks = {}
    for number, kept in (own.kept or {}).items():
        layer: Any = context.cache.layers[number]
        rows: Any = own.cache.layers[number]
        for whole_rows, new in ((layer.keys, rows.keys), (layer.values, rows.values)):
            index = kept.position.unsqueeze(-1).expand_as(new)
            whole_rows.scatter_(2, index, new.gather(2, first_copy(kept, new)))
        marks[number] = torch.zeros(kept.key.shape[:3], dtype=torch.bool)
        marks[number].scatter_(2, kept.position, True)
    return context, marks


def first_copy(kept: Any, rows: Tensor) -> Tensor:
    """Return an index of rows in which padding repeats the last row of its head."""
    last = kept.occupied.sum(-1, keepdim=True) - 1
    place = torch.minimum(torch.arange(kept.rows).expand_as(kept.position), last)
    return place.unsqueeze(-1).expand_as(rows)


class Reading:
    """Read the marked keys of the context and all keys after it."""

    def __init__(self, marks: Mapping[int, Tensor]) -> None:
        self.marks = marks

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        marks = self.marks[inputs.layer_idx].repeat_interleave(inputs.group_size, 1).unsqueeze(2)
        readable = pad(marks, (0, inputs.key.shape[2] - marks.shape[-1]), value=True)
        return mask.add(readable.expand(mask.selected.shape))


@pytest.mark.parametrize("maskers", MASKERS)
@pytest.mark.parametrize("name", REWRITERS)
def test_answers_as_if_the_cache_had_held_the_rewritten_rows(
    name: str, maskers: str, tiny: LanguageModel
) -> None:
    attention = rewriting(REWRITERS[name], maskers=MASKERS[maskers])
    _, own, session = begun(tiny, attention)
    tokens, logits = answered(tiny, own, session)
    context, marks = overwritten(tiny, attention)
    reference = MASKERS[maskers] or {"all": Reading(marks)}
    whole_cache = session_of(SparseAttention(name="reference", maskers=reference), context)
    expected_tokens, expected = answered(tiny, context, whole_cache)
    assert tokens == expected_tokens
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert session.density() == pytest.approx(whole_cache.density(), rel=1e-6)
    assert session.context_index_bytes() == whole_cache.context_index_bytes()
    exact = tiny.prefill(CONTEXT, reserve_tokens=30)
    dense = session_of(DenseAttention(), exact)
    assert (logits[0] - answered(tiny, exact, dense)[1][0]).abs().max() > 1e-3


@pytest.mark.parametrize("evictor", [KNorm(fraction=0.5), AdaKV(of=KNorm(fraction=0.5))], ids=str)
@pytest.mark.parametrize("name", REWRITERS)
def test_rewrites_what_is_left_after_an_eviction(
    name: str, evictor: Any, tiny: LanguageModel
) -> None:
    attention = rewriting(REWRITERS[name], evict={"mine": evictor})
    _, own, session = begun(tiny, attention)
    tokens, logits = answered(tiny, own, session)
    context, marks = overwritten(tiny, attention)
    assert 0.4 < torch.stack(list(marks.values())).double().mean() < 0.6
    reference = SparseAttention(name="reference", maskers={"kept": Reading(marks)})
    expected_tokens, expected = answered(tiny, context, session_of(reference, context))
    assert tokens == expected_tokens
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "rewriter",
    [KIVI(bits=16, residual=0), KIVI(residual=90), Quantised(bits=16), ThinK(fraction=1.0)],
    ids=str,
)
def test_rewriting_without_loss_is_dense_token_for_token(
    rewriter: Any, tiny: LanguageModel
) -> None:
    context, own, session = begun(tiny, rewriting(rewriter))
    tokens, logits = answered(tiny, own, session)
    expected_tokens, expected = answered(tiny, context, session_of(DenseAttention(), context))
    assert tokens == expected_tokens
    assert_close(logits, expected, atol=5e-3, rtol=0)
    assert session.density() == 1.0


def test_arms_take_turns_on_one_prefill(tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, rewriting(REWRITERS["kivi"]))
    first = answered(tiny, own, session)
    dense = session_of(DenseAttention(), context)
    before = answered(tiny, context, dense)
    assert torch.equal(answered(tiny, own, session)[1], first[1])
    assert torch.equal(answered(tiny, context, dense)[1], before[1])


def test_dense_layers_stay_exact(tiny: LanguageModel) -> None:
    context, own, _ = begun(tiny, rewriting(REWRITERS["kivi"], dense_layers=[0]))
    assert own.kept is not None
    assert own.kept.keys() == {1}
    assert own.cache.layers[0] is context.cache.layers[0]


def test_rewritten_rows_count_as_packed_and_later_ones_as_they_are(tiny: LanguageModel) -> None:
    context, own, _ = begun(tiny, rewriting(Quantised(bits=4)))
    # 2 layers, 2 heads, keys and values of 16 channels: 8 bytes of codes, 8 for the group.
    assert own.cache.bytes_held() == 90 * 2 * 2 * 2 * 16
    assert context.cache.bytes_held() == 90 * 2 * 2 * 2 * 64
    row = torch.zeros(1, 2, 3, 16)
    with torch.inference_mode():
        own.cache.layers[0].update(row, row)  # type: ignore[no-untyped-call]
    assert own.cache.bytes_held() == (90 * 2 * 2 * 2 * 16) + 3 * 2 * 2 * 64
    own.cache.rewind()


def test_questions_of_a_batch_get_the_answers_of_one_by_one(tiny: LanguageModel) -> None:
    _, own, session = begun(tiny, rewriting(REWRITERS["kivi"]))
    asked = [QUESTION, QUESTION[:5], QUESTION[3:]]
    alone = [answered(tiny, own, session, question=question)[0] for question in asked]
    tokens, _ = answered_together(tiny, own, session, asked)
    assert tokens == alone


def test_error_and_recall_are_measured_against_the_exact_context(tiny: LanguageModel) -> None:
    seen: list[tuple[AttentionInputs, AttentionInputs, Tensor, Tensor, Tensor]] = []

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        entire, selected = whole(inputs, mask)
        error, share = output_error(entire, selected, output), recall(entire, selected)
        seen.append((inputs, entire, output, error, share))

    context, own, session = begun(tiny, rewriting(REWRITERS["kivi"]), observers=(observe,))
    answered(tiny, own, session)
    assert len(seen) > 2
    for inputs, entire, output, error, share in seen:
        cached: Any = context.cache.layers[inputs.layer_idx]
        assert torch.equal(entire.key[:, :, :90], cached.keys)
        assert torch.equal(entire.value[:, :, :90], cached.values)
        key = entire.key.repeat_interleave(2, 1)
        scores = (entire.query * entire.scaling) @ key.transpose(-1, -2)
        weights = scores.masked_fill(~entire.visible, -torch.inf).softmax(-1)
        exact = weights @ entire.value.repeat_interleave(2, 1)
        expected = (output - exact).norm(dim=-1) / exact.norm(dim=-1)
        assert_close(error, expected, atol=1e-5, rtol=1e-4)
        assert error.min() > 1e-3
        assert_close(share, torch.ones_like(share))


def test_without_a_context_nothing_is_rewritten(tiny: LanguageModel) -> None:
    attention = rewriting(REWRITERS["think"])
    context = tiny.prefill([], reserve_tokens=30, witness=attention.witness)
    own = evicted(context, attention, tiny.model.config, seed=0)
    session = AttentionSession(attention, seed=0)
    session.begin_context(own.length, own.kept)
    answered(tiny, own, session)
    assert session.density() == 1.0


def test_a_cache_of_latents_is_refused() -> None:
    attention = rewriting(REWRITERS["kivi"])
    model = LanguageModel(small_model("deepseek_v3"), PromptEncoder(tiny_tokenizer(), None))
    context = model.prefill(CONTEXT, reserve_tokens=0, witness=attention.witness)
    with pytest.raises(ConfigurationError, match=r"rewrite: layer 0 .* cannot be rewritten"):
        evicted(context, attention, model.model.config, seed=0)
