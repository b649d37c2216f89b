"""Evicting after the context: masked rows answer like rows that are really dropped."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from batches import answered_together
from jaxtyping import Bool
from test_eviction import CONTEXT, QUESTION, SELECTING, Logits, Ragged, answered, begun, evicting
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from sah.attention import AttentionInputs, AttentionMask, DenseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.whole import whole
from sah.attention.interface import attention_replaced
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.evictors.decoding.h2o_decoding import H2ODecoding
from sah.evictors.decoding.r_kv import RKV
from sah.evictors.decoding.rescoring import Decoding
from sah.evictors.decoding.tova_decoding import TOVADecoding
from sah.evictors.knorm import KNorm
from sah.evictors.sink_and_recent import SinkAndRecent
from sah.evictors.snapkv import SnapKV
from sah.execution.teacher_forcing import LayerErrors
from sah.metric_logging.metrics import output_error
from sah.models.language_model import LanguageModel, PrefilledContext

BUDGET, WINDOW, EVERY = 20, 4, 5
EVICTORS = {
    "tova": TOVADecoding(tokens=BUDGET),
    "h2o": H2ODecoding(tokens=BUDGET, recent=0.3),
    "knorm": Decoding(of=KNorm(tokens=BUDGET), every=EVERY),
    "r_kv": RKV(tokens=BUDGET, window=WINDOW, kernel=3, mix=0.4, every=EVERY),
}
OTHERS = {
    "snapkv": Decoding(of=SnapKV(tokens=3, window=8), every=1),
    "ends": Decoding(of=SinkAndRecent(tokens=BUDGET), every=3),
}

Drop = Callable[["Held", Tensor, Tensor], None]


class Held:
    """Keys and values of one layer by head, [K, D], of which rows are really dropped."""

    def __init__(self, own: PrefilledContext, layer: int, sums: Tensor, queries: Tensor) -> None:
        assert own.kept is not None
        kept = own.kept[layer]
        self.key = list(kept.rows_of(kept.key)[0].clone())
        self.value = list(kept.rows_of(kept.value)[0].clone())
        self.sums = [one[where] for one, where in zip(sums, kept.position[0], strict=True)]
        self.queries = queries
        self.steps = 0

    def keep(self, head: int, rows: Tensor) -> None:
        for part in (self.key, self.value, self.sums):
            part[head] = part[head][rows]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, drop: Drop) -> Any:
        """Read query [H, D] with its own key and value, [G, D]; drop rows; return [H, D]."""
        self.steps += 1
        self.queries = torch.cat([self.queries, query[:, None]], dim=1)[:, -WINDOW:]
        share = query.shape[0] // len(self.key)
        outputs, weights = [], []
        for head in range(len(self.key)):
            self.key[head] = torch.cat([self.key[head], key[head, None]])
            self.value[head] = torch.cat([self.value[head], value[head, None]])
            own = query[head * share : (head + 1) * share]
            weights.append((own @ self.key[head].T * scaling).softmax(-1))
            outputs.append(weights[-1] @ self.value[head])
            grown = torch.cat([self.sums[head], torch.zeros(1)])
            self.sums[head] = grown + weights[-1].mean(0)
        for head in range(len(self.key)):
            if len(self.key[head]) > BUDGET:
                drop(self, head, weights, scaling)  # type: ignore[arg-type]
        return torch.cat(outputs)


def drop_tova(held: Held, head: Any, weights: Any, _: Any) -> None:
    votes = torch.cat(weights).mean(0)
    held.keep(head, torch.arange(len(votes)) != votes.argmin())


def drop_h2o(held: Held, head: Any, weights: Any, _: Any) -> None:
    old = held.sums[head][: -int(BUDGET * 0.3)]
    held.keep(head, torch.arange(len(held.sums[head])) != old.argmin())


def drop_knorm(held: Held, head: Any, weights: Any, _: Any) -> None:
    if held.steps % EVERY == 0:
        norms = held.key[head].norm(dim=-1)
        held.keep(head, norms.argsort()[:BUDGET].sort().values)


def drop_r_kv(held: Held, head: Any, weights: Any, scaling: Any) -> None:
    if held.steps % EVERY:
        return
    key, share = held.key[head], len(held.queries) // len(held.key)
    count = len(key)
    importance = torch.zeros(count)
    for query in held.queries[head * share : (head + 1) * share]:
        logits = query @ key.T * scaling  # W K
        for back in range(1, WINDOW):
            logits[WINDOW - 1 - back, count - back :] = -torch.inf
        mean = logits.softmax(-1)[:, : count - WINDOW].mean(0)
        for place in range(len(mean)):
            importance[place] += mean[max(0, place - 1) : place + 2].max() / share
    cosine = cosine_similarity(key[:, None], key[None], dim=-1) * (1 - torch.eye(count))
    score = 0.4 * importance - 0.6 * cosine.mean(0).softmax(-1)
    score[-WINDOW:] = torch.inf
    held.keep(head, score.argsort(descending=True)[:BUDGET].sort().values)


DROPS = {"tova": drop_tova, "h2o": drop_h2o, "knorm": drop_knorm, "r_kv": drop_r_kv}


def really_dropped(
    model: LanguageModel, context: PrefilledContext, own: PrefilledContext, ids: Any, drop: Any
) -> Tensor:
    """Return the logits of every token when rows are dropped after each."""
    layers = {}
    for number, seen in context.witnessed.items():
        assert seen.received is not None
        sums = seen.received[0].unflatten(0, (2, -1)).mean(1)
        layers[number] = Held(own, number, sums, seen.queries[0][:, -WINDOW:])

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **kw: Any) -> Any:
        new = query[0, :, 0], key[0, :, -1], value[0, :, -1]
        return layers[module.layer_idx].attend(*new, kw["scaling"], drop)[None, None], None

    with torch.inference_mode(), attention_replaced(model.model, attend, lambda **_: None):
        logits = [model.forward([token], context.cache, logits=1)[:, -1] for token in ids]
    context.cache.rewind()
    return torch.cat(logits)


@pytest.mark.parametrize("name", DROPS)
def test_masked_rows_answer_like_rows_that_are_dropped(name: str, tiny: LanguageModel) -> None:
    context, own, session = begun(tiny, evicting(EVICTORS[name]))
    tokens, logits = answered(tiny, own, session)
    ids = [*QUESTION, *tokens[:-1]]
    expected = really_dropped(tiny, context, own, ids, DROPS[name])
    assert_close(logits, expected[len(QUESTION) - 1 :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EVICTORS | OTHERS)
def test_any_chunking_of_the_question_gives_the_same(name: str, tiny: LanguageModel) -> None:
    _, own, session = begun(tiny, evicting((EVICTORS | OTHERS)[name]))

    def read(*ends: int) -> tuple[Tensor, float | None]:
        session.begin_example("one")
        parts = [QUESTION[a:b] for a, b in zip((0, *ends), (*ends, 12), strict=True)]
        with torch.inference_mode(), session.attached(tiny.model, is_question=True):
            logits = [tiny.forward(ids, own.cache, logits=len(ids)) for ids in parts]
        own.cache.rewind()
        return torch.cat(logits, dim=1), session.density()

    whole_question, expected = read()
    for ends in ((5,), (1, 2, 11), tuple(range(1, 12))):
        logits, density = read(*ends)
        # The model's other layers round differently for other numbers of tokens.
        assert_close(logits, whole_question, atol=1e-4, rtol=1e-4)
        assert density == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", EVICTORS | OTHERS)
def test_another_answer_in_between_changes_nothing(name: str, tiny: LanguageModel) -> None:
    _, own, session = begun(tiny, evicting((EVICTORS | OTHERS)[name], maskers=SELECTING))
    first = answered(tiny, own, session)
    answered(tiny, own, session, question=QUESTION[::-1])
    assert torch.equal(answered(tiny, own, session)[1], first[1])


@pytest.mark.parametrize("name", EVICTORS)
def test_a_budget_of_the_whole_sequence_is_dense_token_for_token(
    name: str, tiny: LanguageModel
) -> None:
    evictor = EVICTORS[name]
    if isinstance(evictor, Decoding):
        evictor = dataclasses.replace(evictor, of=KNorm(tokens=200))
    else:
        evictor = dataclasses.replace(evictor, tokens=200)
    context, own, session = begun(tiny, evicting(evictor))
    tokens, logits = answered(tiny, own, session)
    dense = AttentionSession(DenseAttention(), seed=0)
    dense.begin_context(context.length)
    expected_tokens, expected = answered(tiny, context, dense)
    assert tokens == expected_tokens
    assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert session.density() == 1.0
    assert session.evicted_later() == (0, 90 + 12 + 9)


def test_a_key_evicted_after_the_context_counts_as_visible(tiny: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        inputs, mask = whole(inputs, mask)
        assert inputs.key.shape[2] == inputs.first_position + 1
        if inputs.layer_idx == 0:
            seen.append((int(mask.visible.sum()), int(mask.selected[0, 0].sum())))

    _, own, session = begun(tiny, evicting(EVICTORS["tova"]), observers=(observe,))
    answered(tiny, own, session)
    assert seen == [(90 + after, BUDGET + 1) for after in range(1, 22)]
    shares = [(BUDGET + 1) / (90 + after) for after in range(1, 22)]
    assert session.density() == pytest.approx(sum(shares) / 21)
    row = 2 * 16 * 4
    # 2 layers of 2 heads hold the budget after the last query.
    assert session.evicted_later() == (2 * 2 * (90 + 21 - BUDGET) * row, 90 + 21)


def test_teacher_forcing_measures_the_queries_whose_tokens_are_compared(
    tiny: LanguageModel,
) -> None:
    errors: dict[int, list[float]] = {0: [], 1: []}

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        entire, mask = whole(inputs, mask)
        if entire.first_position >= 90 + 12 - 1:
            errors[entire.layer_idx].append(float(output_error(entire, mask, output).mean()))

    layer_errors = LayerErrors()
    _, own, session = begun(tiny, evicting(EVICTORS["h2o"]), observers=(observe, layer_errors))
    answered(tiny, own, session)
    measured = layer_errors.measured()["output_error"]
    for layer, expected in errors.items():
        assert len(expected) == 10
        assert measured[str(layer)] == pytest.approx(sum(expected) / 10, rel=1e-5)


def test_heads_may_hold_different_numbers_of_keys(tiny: LanguageModel) -> None:
    @dataclass(frozen=True, kw_only=True)
    class RaggedTOVA(TOVADecoding):
        """Start with more keys in one head than in the other."""

        def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
            return Ragged().at_context(layer)

    _, own, session = begun(tiny, evicting(RaggedTOVA(tokens=30)))
    answered(tiny, own, session, question=QUESTION[:1])
    # Heads of 45, 18, 30 and 18 keys: the small ones grow by the ten keys that follow.
    held = 30 + 28 + 30 + 28
    assert session.evicted_later() == ((4 * 100 - held) * 2 * 16 * 4, 100)


def test_questions_of_a_batch_do_not_share_evictions(tiny: LanguageModel) -> None:
    for evictor in EVICTORS.values():
        _, own, session = begun(tiny, evicting(evictor))
        asked = [QUESTION, QUESTION[:5], QUESTION[3:]]
        alone = [answered(tiny, own, session, question=question)[0] for question in asked]
        tokens, _ = answered_together(tiny, own, session, asked)
        assert tokens == alone


def test_a_continuation_has_the_same_loss_in_any_chunks(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, own, session = begun(tiny, evicting(EVICTORS["h2o"]))

    def loss() -> float:
        session.begin_example("one")
        return tiny.continuation_loss(own, CONTEXT[:30], session=session)[0]

    expected = loss()
    monkeypatch.setattr("sah.models.language_model._LOSS_CHUNK_TOKENS", 4)
    assert loss() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", EVICTORS)
def test_without_a_context_the_question_and_the_answer_are_evicted(
    name: str, tiny: LanguageModel
) -> None:
    context = tiny.prefill([], reserve_tokens=40)
    session = AttentionSession(evicting(EVICTORS[name]), seed=0)
    session.begin_context(0, {})
    question = [*QUESTION, *QUESTION]
    _, logits = answered(tiny, context, session, question=question)
    read = session.keys_read()
    assert read is not None
    assert read.density < 1
    assert torch.equal(answered(tiny, context, session, question=question)[1], logits)


def test_a_share_of_no_context_is_refused(tiny: LanguageModel) -> None:
    context = tiny.prefill([], reserve_tokens=40)
    session = AttentionSession(evicting(TOVADecoding(fraction=0.3)), seed=0)
    session.begin_context(0, {})
    session.begin_example("one")
    with pytest.raises(ConfigurationError, match=r"fraction=0.3 of an empty context"):
        tiny.answer(context, QUESTION, session=session, sampler=Logits(), max_new_tokens=2)


@pytest.mark.parametrize("name", EVICTORS)
def test_layers_that_stay_dense_evict_nothing(name: str, tiny: LanguageModel) -> None:
    _, own, session = begun(tiny, evicting(EVICTORS[name], dense_layers=[0]))
    answered(tiny, own, session)
    read = session.keys_read()
    assert read is not None
    assert read.dense_queries == read.sparse_queries == 21
