"""Evicting after the context, in all rows of a batch at once: each row has what it has alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Bool, Float
from test_eviction import CONTEXT, QUESTION, SELECTING, Logits, Ragged, evicting
from torch import Tensor
from torch.testing import assert_close

from sah.attention import SparseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.attention.session import AttentionSession
from sah.evictors.decoding.h2o_decoding import H2ODecoding
from sah.evictors.decoding.r_kv import RKV
from sah.evictors.decoding.rescoring import Decoding
from sah.evictors.decoding.tova_decoding import TOVADecoding
from sah.evictors.knorm import KNorm
from sah.evictors.random_eviction import RandomEviction
from sah.evictors.scoring import ScoringEvictor
from sah.evictors.snapkv import SnapKV
from sah.maskers.quest import Quest
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.language_model import AfterQuestion, LanguageModel, PrefilledContext

# Keys of the context, tokens of the question and of the answer. A and B share a context, C fits
# into some budgets, D ends at its first token, and E is shorter than a window of queries.
ROWS = {
    "A": (90, 12, 14),
    "B": (90, 5, 6),
    "C": (15, 3, 11),
    "D": (61, 1, 1),
    "E": (4, 2, 14),
    "F": (40, 7, 9),
}
WITHOUT_CONTEXT = {"A": (0, 12, 14), "B": (0, 3, 11), "C": (50, 5, 6), "D": (0, 12, 9)}
# Other arms may ask for more queries than an evictor's window.
WITNESS = Witness(last_queries=24, received=True)


@dataclass(frozen=True, kw_only=True)
class RaggedTOVA(TOVADecoding):
    """Starts with more keys in one head than in the other."""

    batched: ClassVar = True

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        return Ragged().at_context(layer)


@dataclass(frozen=True, kw_only=True)
class MeanQuery(ScoringEvictor):
    """Keeps what the mean of the queries that it remembers attends to."""

    witness: ClassVar = Witness(last_queries=24)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        queries = layer.witnessed.queries
        assert queries.ne(0).any(-1).all(), "no padding"
        query = layer.mean_over_group(queries.mean(2, keepdim=True))
        return (layer.key @ query.transpose(-1, -2)).squeeze(-1)


EVICTORS = {
    "tova": TOVADecoding(tokens=20),
    "h2o": H2ODecoding(tokens=25, recent=0.3),
    "r_kv": RKV(tokens=12, window=8, kernel=3, mix=0.4, every=3),
    "snapkv": Decoding(of=SnapKV(tokens=16, window=9), every=1),
    "mean_query": Decoding(of=MeanQuery(tokens=10), every=3),
    "random": Decoding(of=RandomEviction(tokens=10), every=2),
}
BY_CONTEXT = {
    "h2o_share": H2ODecoding(fraction=0.3, recent=0.4),
    "knorm_share": Decoding(of=KNorm(fraction=0.3), every=5),
    "ragged_tova": RaggedTOVA(tokens=20),
}
MASKERS: dict[str, Any] = {
    "none": {},
    "top": SELECTING,
    "quest": {"quest": Quest(tokens=8, page_size=4)},
}


@dataclass(frozen=True, kw_only=True)
class Answered:
    logits: Tensor
    density: float | None
    evicted: tuple[int, int] | None
    """Bytes, and the length of the sequence."""

    def held(self) -> float:
        """Return the keys that a head holds at the end, of two layers with two heads."""
        assert self.evicted is not None
        evicted_bytes, sequence = self.evicted
        return sequence - evicted_bytes / (2 * 2 * 2 * 16 * 4)


def begun(
    model: LanguageModel, attention: SparseAttention, length: int
) -> tuple[PrefilledContext, AttentionSession]:
    context = model.prefill(CONTEXT[:length], reserve_tokens=40, witness=WITNESS)
    own = evicted(context, attention, model.model.config, seed=0)
    session = AttentionSession(attention, seed=0)
    session.begin_context(own.length, own.kept)
    return own, session


def begun_before_question(
    model: LanguageModel, attention: SparseAttention, length: int
) -> tuple[PrefilledContext, AttentionSession]:
    context = model.prefill(CONTEXT[:length], reserve_tokens=40, witness=WITNESS)
    return context, AttentionSession(attention, seed=0)


def row_of(name: str, size: Any, context: PrefilledContext, session: AttentionSession) -> Row:
    _, asked, limit = size
    # Given tokens: they do not depend on how logits are rounded.
    tokens = [5 + (ord(name) * (7 + 11 * n)) % 380 for n in range(limit)]
    return Row(
        example_id=name,
        context=context,
        question_ids=QUESTION[:asked],
        session=session.fork(),
        sampler=Logits(tokens),
        max_new_tokens=limit,
    )


def answered(model: LanguageModel, rows: list[Row], **options: Any) -> dict[str, Answered]:
    answer_rows(model, rows, **options)
    return {
        row.example_id: Answered(
            logits=torch.cat(row.sampler.seen),  # type: ignore[attr-defined]
            density=row.session.density(),
            evicted=row.session.evicted_later(),
        )
        for row in rows
    }


def assert_rows_are_as_alone(
    model: LanguageModel,
    attention: SparseAttention,
    sizes: Any = ROWS,
    begin: Callable[..., Any] = begun,
    prepare: Callable[[Row], Row] = lambda row: row,
    **options: Any,
) -> dict[str, Answered]:
    contexts = {length: begin(model, attention, length) for length, _, _ in sizes.values()}
    rows = {
        name: lambda name=name, size=size: prepare(row_of(name, size, *contexts[size[0]]))
        for name, size in sizes.items()
    }
    batch = answered(model, [make() for make in rows.values()], **options)
    for name, make in rows.items():
        found, expected = batch[name], answered(model, [make()], **options)[name]
        assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
        assert (found.density is None) == (expected.density is None)
        assert found.density is None or found.density == pytest.approx(expected.density, rel=1e-6)
        assert found.evicted == expected.evicted
    return batch


@pytest.mark.parametrize(
    ("name", "maskers"),
    [
        *((name, "none") for name in EVICTORS | BY_CONTEXT),
        *(("tova", "top"), ("ragged_tova", "top"), ("h2o_share", "quest"), ("r_kv", "quest")),
    ],
)
def test_each_row_has_the_logits_and_the_evictions_that_it_has_alone(
    name: str, maskers: str, tiny: LanguageModel
) -> None:
    attention = evicting((EVICTORS | BY_CONTEXT)[name], maskers=MASKERS[maskers])
    assert attention.batched_at(0)
    batch = assert_rows_are_as_alone(tiny, attention)
    # Budgets are at most 27 keys, and up to four new ones wait for the next eviction; 25 follow
    # the context. The heads of the ragged one begin with up to 45 keys.
    assert batch["A"].held() <= (35 if name == "ragged_tova" else 27 + 4)


@pytest.mark.parametrize("name", EVICTORS)
def test_rows_without_a_context_evict_question_and_answer(name: str, tiny: LanguageModel) -> None:
    batch = assert_rows_are_as_alone(tiny, evicting(EVICTORS[name]), WITHOUT_CONTEXT)
    assert batch["A"].held() <= 25


@pytest.mark.parametrize("name", EVICTORS)
def test_rows_evict_after_a_dense_question(name: str, tiny: LanguageModel) -> None:
    attention = evicting(EVICTORS[name])

    def prepare(row: Row) -> Row:
        def keep(both: PrefilledContext) -> PrefilledContext:
            own = evicted(both, attention, tiny.model.config, seed=0)
            row.session.begin_context(own.length, own.kept)
            return own

        row.after_question = AfterQuestion(witness=WITNESS, keep=keep)
        return row

    assert_rows_are_as_alone(
        tiny, attention, begin=begun_before_question, prepare=prepare, dense_question=True
    )


def test_rows_of_an_evictor_that_is_not_batched_are_computed_one_by_one(
    tiny: LanguageModel,
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(TOVADecoding):
        """Does not inherit that it is batched."""

    attention = evicting(Mine(tokens=20), maskers=SELECTING)
    assert not attention.batched_at(0)
    assert_rows_are_as_alone(tiny, attention)


def test_a_layer_that_is_kept_dense_is_computed_for_all_rows_at_once(tiny: LanguageModel) -> None:
    attention = evicting(EVICTORS["h2o"], dense_layers=[0])
    assert attention.batched_at(0)
    batch = assert_rows_are_as_alone(tiny, attention)
    assert batch["A"].density is not None
    assert batch["A"].density > 0.5
