"""Life cycle of key indexes and of reused selections: made, appended, rewound, dropped."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, SparseAttention, TopKMasker
from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext

Make = Callable[..., Any]


class KeptKeys:
    """An index that keeps keys and values unchanged and records the calls it gets."""

    def __init__(self, key: Tensor, value: Tensor, events: list[tuple[str, int]]) -> None:
        self.key, self.value = key.clone(), value.clone()
        self.events = events
        events.append(("build", self.length))

    @property
    def length(self) -> int:
        return self.key.shape[2]

    @property
    def nbytes(self) -> int:
        return self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor) -> None:
        self.events.append(("append", key.shape[2]))
        self.key = torch.cat([self.key, key], dim=2)
        self.value = torch.cat([self.value, value], dim=2)

    def rewind(self, length: int) -> None:
        self.events.append(("rewind", length))
        self.key, self.value = self.key[:, :, :length], self.value[:, :, :length]


@dataclass(frozen=True, kw_only=True)
class ReadsItsIndex:
    """Selects every key; fails unless its index holds exactly the layer's keys and values."""

    layer: int = 0
    number: int = 0
    events: list[tuple[str, int]] = field(default_factory=list, compare=False)

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        events = self.events if inputs.layer_idx == self.layer else []
        index = inputs.index(self, lambda key, value: KeptKeys(key, value, events))
        assert torch.equal(index.key, inputs.key)
        assert torch.equal(index.value, inputs.value)
        return mask.add(inputs.visible)


@dataclass(frozen=True, kw_only=True)
class RecordsScores(TopKMasker):
    """Ranks keys by exact scores; records the first position and number of queries it scores."""

    events: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def scores(self, inputs: AttentionInputs) -> Tensor:
        if inputs.layer_idx == 0:
            self.events.append((inputs.first_position, inputs.query.shape[2]))
        return inputs.scores


def start(
    model: LanguageModel, length: int, *maskers: ReadsItsIndex | RecordsScores, **options: Any
) -> tuple[PrefilledContext, AttentionSession]:
    attention = SparseAttention(
        name="indexed", maskers={str(n): m for n, m in enumerate(maskers)}, **options
    )
    context = model.prefill([4 + n % 380 for n in range(length)], reserve_tokens=40)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length)
    return context, session


def ask(
    model: LanguageModel,
    context: PrefilledContext,
    session: AttentionSession,
    question: int,
    new_tokens: int,
    **options: Any,
) -> None:
    session.begin_example("one")
    answer = model.answer(
        context,
        [9 + n for n in range(question)],
        session=session,
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=new_tokens,
        **options,
    )
    # The lengths expected below assume that the answer was not cut short.
    assert answer.finish_reason == "length"


def test_is_built_once_from_the_context_then_appended_and_rewound(tiny: LanguageModel) -> None:
    masker = ReadsItsIndex()
    context, session = start(tiny, 20, masker)
    ask(tiny, context, session, question=5, new_tokens=3)
    first = [("build", 20), ("append", 5), ("append", 1), ("append", 1)]
    assert masker.events == first
    ask(tiny, context, session, question=2, new_tokens=2)
    assert masker.events == [*first, ("rewind", 20), ("append", 2), ("append", 1)]


def test_is_dropped_with_its_context(tiny: LanguageModel) -> None:
    masker = ReadsItsIndex()
    context, session = start(tiny, 20, masker)
    ask(tiny, context, session, question=5, new_tokens=1)
    other = tiny.prefill([300 - n for n in range(7)], reserve_tokens=10)
    session.begin_context(other.length)
    ask(tiny, other, session, question=4, new_tokens=1)
    assert masker.events == [("build", 20), ("append", 5), ("build", 7), ("append", 4)]


def test_includes_a_dense_question(tiny: LanguageModel) -> None:
    masker = ReadsItsIndex()
    context, session = start(tiny, 20, masker)
    ask(tiny, context, session, question=5, new_tokens=3, dense_question=True)
    assert masker.events == [("build", 20), ("append", 6), ("append", 1)]


def test_is_built_from_each_question_without_a_context(tiny: LanguageModel) -> None:
    masker = ReadsItsIndex()
    context, session = start(tiny, 0, masker)
    ask(tiny, context, session, question=5, new_tokens=2)
    ask(tiny, context, session, question=3, new_tokens=1)
    events = [("build", 5), ("append", 1), ("build", 3)]
    assert masker.events == events


def test_is_appended_once_however_the_question_is_chunked(tiny: LanguageModel) -> None:
    masker = ReadsItsIndex()
    context, session = start(tiny, 400, masker, workspace_bytes=2**20)
    ask(tiny, context, session, question=100, new_tokens=1)
    assert masker.events == [("build", 400), ("append", 100)]


def test_survives_an_interrupted_answer(tiny: LanguageModel) -> None:
    def stop() -> None:
        raise TimeoutError

    masker = ReadsItsIndex()
    context, session = start(tiny, 20, masker)
    with pytest.raises(TimeoutError):
        ask(tiny, context, session, question=5, new_tokens=3, between_tokens=stop)
    ask(tiny, context, session, question=2, new_tokens=1)
    assert masker.events == [("build", 20), ("append", 5), ("rewind", 20), ("append", 2)]


def test_every_layer_has_its_own_index(tiny: LanguageModel) -> None:
    maskers = [ReadsItsIndex(layer=0, number=1), ReadsItsIndex(layer=1, number=2)]
    context, session = start(tiny, 20, *maskers)
    ask(tiny, context, session, question=5, new_tokens=1)
    for masker in maskers:
        assert masker.events == [("build", 20), ("append", 5)]


def test_is_shared_by_equal_maskers_and_by_no_others(tiny: LanguageModel) -> None:
    first, equal, other = ReadsItsIndex(), ReadsItsIndex(), ReadsItsIndex(number=1)
    assert first == equal != other
    context, session = start(tiny, 20, first, equal, other)
    ask(tiny, context, session, question=5, new_tokens=1)
    assert first.events == other.events == [("build", 20), ("append", 5)]
    assert equal.events == []


def test_inputs_outside_a_session_build_their_own_index(make_inputs: Make) -> None:
    masker = ReadsItsIndex()
    for inputs in (make_inputs(queries=4, seed=0), make_inputs(queries=4, seed=1)):
        masker(inputs, AttentionMask.empty(inputs))
    assert masker.events == [("build", 8), ("append", 4)] * 2


def test_a_question_and_every_n_th_decode_step_select_and_no_answer_changes_the_next(
    tiny: LanguageModel,
) -> None:
    def stop() -> None:
        raise TimeoutError

    masker = RecordsScores(tokens=4, every=3)
    context, session = start(tiny, 20, masker)
    ask(tiny, context, session, question=5, new_tokens=6)
    assert masker.events == [(20, 5), (25, 1), (28, 1)]
    with pytest.raises(TimeoutError):
        ask(tiny, context, session, question=4, new_tokens=6, between_tokens=stop)
    ask(tiny, context, session, question=3, new_tokens=6)
    ask(tiny, context, session, question=7, new_tokens=3, dense_question=True)
    assert masker.events[3:] == [(20, 4), (20, 3), (23, 1), (26, 1), (27, 1)]
