"""Attention sessions inside a model: outputs, density, seeds, and restoring the model."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.maskers.causal import Causal
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.quest import Quest
from sah.maskers.random_sampling import RandomSampling
from sah.maskers.sink import Sink
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext

CONTEXT = [1 + (7 * n) % 390 for n in range(60)]
QUESTION = [5 + (11 * n) % 380 for n in range(12)]


def sparse(*maskers: Any, **options: Any) -> SparseAttention:
    return SparseAttention(
        name="mine", maskers={str(n): masker for n, masker in enumerate(maskers)}, **options
    )


WINDOW = sparse(Sink(tokens=2), Local(tokens=6))
SAMPLING = sparse(Local(tokens=4), RandomSampling(tokens=6))


def answer(
    model: LanguageModel,
    context: PrefilledContext,
    session: AttentionSession,
    question: Sequence[int] = QUESTION,
    example: str = "one",
    new_tokens: int = 8,
    **options: Any,
) -> list[int]:
    session.begin_example(example)
    return model.answer(
        context,
        question,
        session=session,
        sampler=Generation().sampler(0, example, model.device),
        max_new_tokens=new_tokens,
        **options,
    ).token_ids


def started(model: LanguageModel, session: AttentionSession) -> PrefilledContext:
    context = model.prefill(CONTEXT, reserve_tokens=30)
    session.begin_context(context.length)
    return context


def logits(model: LanguageModel, ids: Sequence[int], mask: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        output = model.model(input_ids=torch.tensor(ids), attention_mask=mask).logits
    return output  # type: ignore[no-any-return]


def test_left_padding_is_never_read(tiny: LanguageModel) -> None:
    short, long = [QUESTION[:7], QUESTION]
    padded = [[0] * 5 + short, long]
    mask = torch.tensor([[0] * 5 + [1] * 7, [1] * 12])
    with AttentionSession(sparse(Causal()), seed=0).attached(tiny.model):
        both = logits(tiny, padded, mask)
    assert_close(both[1], logits(tiny, [long])[0], atol=1e-4, rtol=0)
    # transformers numbers positions from the first token, padding included; the rotary
    # embedding depends on differences only.
    assert_close(both[0, 5:], logits(tiny, [short])[0], atol=1e-4, rtol=0)


def test_a_sparse_session_reads_exactly_what_its_maskers_select(tiny: LanguageModel) -> None:
    length = len(CONTEXT)
    query, key = torch.arange(length)[:, None], torch.arange(length)
    allowed = (key <= query) & ((key < 2) | (key > query - 6))
    expected = logits(tiny, [CONTEXT], allowed[None, None])
    with AttentionSession(WINDOW, seed=0).attached(tiny.model):
        assert_close(logits(tiny, [CONTEXT]), expected, atol=1e-4, rtol=0)
    assert (logits(tiny, [CONTEXT]) - expected).abs().max() > 0.1


def test_density_without_any_sparse_layer_is_an_error(tiny: LanguageModel) -> None:
    session = AttentionSession(sparse(Causal(), dense_layers=[0, 1]), seed=0)
    context = started(tiny, session)
    answer(tiny, context, session)
    with pytest.raises(ConfigurationError, match=r"'mine' has no layer to work on.*kept dense"):
        session.density()


@pytest.mark.parametrize("fails", [False, True], ids=["leaving", "raising"])
@pytest.mark.parametrize("attention", [DenseAttention(), WINDOW], ids=["dense", "sparse"])
def test_everything_is_restored(
    attention: DenseAttention | SparseAttention, fails: bool, tiny: LanguageModel
) -> None:
    def state() -> tuple[Any, ...]:
        return (
            tiny.model.config._attn_implementation,
            copy.deepcopy(tiny.model.config.to_dict()),
            dict(AttentionInterface._global_mapping),
            dict(AttentionMaskInterface._global_mapping),
        )

    def use() -> None:
        with AttentionSession(attention, seed=0).attached(tiny.model):
            logits(tiny, [QUESTION])
            if fails:
                raise KeyError

    before, output = state(), logits(tiny, [QUESTION])
    with pytest.raises(KeyError) if fails else nullcontext():
        use()
    assert state() == before
    assert torch.equal(logits(tiny, [QUESTION]), output)


def test_a_masker_that_raises_leaves_model_and_cache_unchanged(tiny: LanguageModel) -> None:
    class FailsInLayerOne:
        def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
            if inputs.layer_idx == 1:
                raise OSError
            return mask.add(inputs.visible)

    dense = AttentionSession(DenseAttention(), seed=0)
    context = started(tiny, dense)
    before = answer(tiny, context, dense)
    with pytest.raises(OSError):
        answer(tiny, context, AttentionSession(sparse(FailsInLayerOne()), seed=0))
    assert tiny.model.config._attn_implementation == "sdpa"
    assert [layer.get_seq_length() for layer in context.cache.layers] == [len(CONTEXT)] * 2
    assert answer(tiny, context, dense) == before


def expected_density(first: int, last: int, selected: Callable[[int], int]) -> float:
    """Return the mean over queries at positions first to last; each sees one more key."""
    shares = [selected(position + 1) / (position + 1) for position in range(first, last + 1)]
    return math.fsum(shares) / len(shares)


def test_density_is_the_mean_over_question_and_decoded_tokens(tiny: LanguageModel) -> None:
    session = AttentionSession(WINDOW, seed=0)
    context = started(tiny, session)
    tokens = answer(tiny, context, session, new_tokens=5)
    # The last token is never fed to the model.
    last = len(CONTEXT) + len(QUESTION) + len(tokens) - 2
    expected = expected_density(len(CONTEXT), last, lambda visible: min(visible, 8))
    assert session.density() == pytest.approx(expected, rel=1e-5)


def test_density_is_reset_for_every_example(tiny: LanguageModel) -> None:
    session = AttentionSession(WINDOW, seed=0)
    context = started(tiny, session)
    answer(tiny, context, session, example="one", new_tokens=9)
    answer(tiny, context, session, example="two", question=QUESTION[:3], new_tokens=1)
    expected = expected_density(len(CONTEXT), len(CONTEXT) + 2, lambda visible: 8)
    assert session.density() == pytest.approx(expected, rel=1e-5)


def test_dense_layers_count_as_density_1(tiny: LanguageModel) -> None:
    attention = sparse(Sink(tokens=2), Local(tokens=6), dense_layers=[0])
    session = AttentionSession(attention, seed=0)
    context = started(tiny, session)
    answer(tiny, context, session, new_tokens=1)
    window = expected_density(
        len(CONTEXT), len(CONTEXT) + len(QUESTION) - 1, lambda visible: min(visible, 8)
    )
    assert session.density() == pytest.approx((1 + window) / 2, rel=1e-5)


def test_padding_does_not_count_in_the_density(tiny: LanguageModel) -> None:
    session = AttentionSession(sparse(Local(tokens=2)), seed=0)
    session.begin_example("padded")
    mask = torch.tensor([[0] * 5 + [1] * 3, [0] * 7 + [1]])
    with session.attached(tiny.model):
        logits(tiny, [QUESTION[:8], QUESTION[:8]], mask)
    assert session.density() == pytest.approx((1 + 1 + 2 / 3 + 1) / 4, rel=1e-5)


def test_dense_attention_has_density_1(tiny: LanguageModel) -> None:
    session = AttentionSession(DenseAttention(), seed=0)
    answer(tiny, started(tiny, session), session)
    assert session.density() == 1.0


@pytest.mark.parametrize(
    "maskers",
    [(Causal(),), (Sink(tokens=2), OracleTopK(fraction=0.1)), (RandomSampling(fraction=0.2),)],
    ids=["causal", "top_k", "sampling"],
)
def test_a_small_workspace_gives_the_same_output_and_density(
    maskers: tuple[Any, ...], tiny: LanguageModel
) -> None:
    ids = [[3 + (13 * n) % 390 for n in range(300)]]
    outputs, densities, calls = [], [], []
    for workspace_bytes in (2**28, 2**20):
        observed: list[int] = []
        session = AttentionSession(
            sparse(*maskers, workspace_bytes=workspace_bytes),
            seed=0,
            observers=(lambda inputs, mask, output, to=observed: to.append(output.shape[2]),),
        )
        session.begin_example("long")
        with session.attached(tiny.model):
            outputs.append(logits(tiny, ids))
        densities.append(session.density())
        calls.append(len(observed))
        assert sum(observed) == 2 * 300
    # 4 heads and 300 keys at 20 bytes each: 43 queries fit into 2**20 bytes.
    assert calls == [2, 2 * 7]
    assert_close(outputs[1], outputs[0], atol=1e-4, rtol=0)
    assert densities[1] == pytest.approx(densities[0], rel=1e-6)


def test_observers_see_every_sparse_layer_and_step(tiny: LanguageModel) -> None:
    seen: list[tuple[int, int, int, int, int]] = []

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        assert mask.selected.shape == (1, 4, inputs.query.shape[2], inputs.key.shape[2])
        assert output.shape == inputs.query.shape
        seen.append(
            (
                inputs.layer_idx,
                inputs.first_position,
                inputs.query.shape[2],
                inputs.key.shape[2],
                inputs.context_length,
            )
        )

    session = AttentionSession(WINDOW, seed=0, observers=(observe, observe))
    answer(tiny, started(tiny, session), session, new_tokens=3)
    once = [
        (layer, first, queries, first + queries, 60)
        for first, queries in ((60, 12), (72, 1), (73, 1))
        for layer in (0, 1)
    ]
    assert seen == [call for call in once for _ in range(2)]


def test_keys_are_not_copied_per_query_head(tiny: LanguageModel) -> None:
    shapes = set()
    session = AttentionSession(
        WINDOW,
        seed=0,
        observers=(lambda inputs, mask, output: shapes.add(inputs.key.shape[:2]),),
    )
    with session.attached(tiny.model):
        logits(tiny, [QUESTION])
    assert shapes == {(1, 2)}


def test_two_sessions_taking_turns_do_not_influence_each_other(tiny: LanguageModel) -> None:
    questions = [QUESTION, QUESTION[3:], QUESTION[::-1]]

    def session(attention: SparseAttention) -> AttentionSession:
        return AttentionSession(attention, seed=4)

    def record(taking_turns: list[AttentionSession]) -> list[list[tuple[list[int], float]]]:
        context = tiny.prefill(CONTEXT, reserve_tokens=30)
        for one in taking_turns:
            one.begin_context(context.length)
        answers: list[list[tuple[list[int], float]]] = [[] for _ in taking_turns]
        for number, question in enumerate(questions):
            for arm, one in enumerate(taking_turns):
                tokens = answer(tiny, context, one, question, f"example {number}")
                answers[arm].append((tokens, one.density()))
        return answers

    both = record([session(WINDOW), session(SAMPLING)])
    assert both == [record([session(WINDOW)])[0], record([session(SAMPLING)])[0]]
    assert both[0] != both[1]


def test_one_session_may_be_attached_inside_another(tiny: LanguageModel) -> None:
    inner, outer = (AttentionSession(sparse(Local(tokens=n)), seed=0) for n in (1, 5))
    with outer.attached(tiny.model):
        alone = logits(tiny, [QUESTION])
        with inner.attached(tiny.model):
            other = logits(tiny, [QUESTION])
        assert torch.equal(logits(tiny, [QUESTION]), alone)
    assert not torch.equal(other, alone)


def test_samples_depend_on_seed_and_example_only(
    tiny: LanguageModel,
) -> None:
    def outcome(seed: int, *examples: str) -> list[int]:
        session = AttentionSession(SAMPLING, seed=seed)
        context = started(tiny, session)
        for example in examples:
            tokens = answer(tiny, context, session, example=example, new_tokens=20)
        return tokens

    assert outcome(0, "b") == outcome(0, "a", "b") == outcome(0, "b", "a", "b")
    assert len({tuple(outcome(s, e)) for s in (0, 1) for e in ("a", "b")}) == 4


def test_every_layer_and_step_draws_different_keys(tiny: LanguageModel) -> None:
    drawn: list[tuple[bool, ...]] = []
    session = AttentionSession(
        sparse(RandomSampling(tokens=10)),
        seed=0,
        observers=(
            lambda inputs, mask, output: drawn.extend(
                tuple(row[: len(CONTEXT)].tolist()) for row in mask.selected.flatten(0, 2)
            ),
        ),
    )
    tokens = answer(tiny, started(tiny, session), session, new_tokens=4)
    rows = 2 * 4 * (len(QUESTION) + len(tokens) - 1)
    assert len(set(drawn)) == len(drawn) == rows


def test_a_dense_question_leaves_only_decoded_tokens_sparse(tiny: LanguageModel) -> None:
    session = AttentionSession(WINDOW, seed=0)
    context = started(tiny, session)
    tokens = answer(tiny, context, session, new_tokens=4, dense_question=True)
    dense = answer(tiny, context, AttentionSession(DenseAttention(), seed=0), new_tokens=1)
    assert tokens[:1] == dense
    first = len(CONTEXT) + len(QUESTION)
    expected = expected_density(first, first + 2, lambda visible: 8)
    assert session.density() == pytest.approx(expected, rel=1e-5)


def test_density_of_an_answer_that_ends_before_any_sparse_query_is_none(
    tiny: LanguageModel,
) -> None:
    session = AttentionSession(WINDOW, seed=0)
    answer(tiny, started(tiny, session), session, new_tokens=1, dense_question=True)
    assert session.density() is None


@pytest.mark.parametrize("dense_layers", [[0], []])
def test_index_memory_is_reported_per_masker_in_bytes_per_key_and_layer(
    dense_layers: list[int], tiny: LanguageModel
) -> None:
    # A page of 8 keys keeps two float32 bounds per channel (16) and key-value head (2).
    quest = Quest(tokens=8, page_size=8)
    attention = sparse(Local(tokens=4), quest, dense_layers=dense_layers)
    session = AttentionSession(attention, seed=0)
    context = started(tiny, session)
    assert session.index_bytes() == {}
    answer(tiny, context, session, new_tokens=1)
    keys = len(CONTEXT) + len(QUESTION)
    pages = -(-keys // 8)
    assert session.index_bytes() == {"1": pytest.approx(2 * 4 * 16 * 2 * pages / keys)}


@pytest.mark.parametrize("scaling", [0.05, 0.5])
def test_dense_attention_in_a_batch_uses_the_model_s_scaling(
    scaling: float, tiny: LanguageModel
) -> None:
    module = tiny.model.model.layers[0].self_attn
    query, key, value = (
        torch.randn(1, *shape, 16, generator=torch.Generator().manual_seed(seed))
        for seed, shape in enumerate([(4, 1), (2, 8), (2, 8)])
    )
    output = AttentionSession(DenseAttention(), seed=0).attend(
        module, query, key, value, scaling=scaling
    )
    keys, values = (kept.repeat_interleave(2, dim=1) for kept in (key, value))
    share = torch.softmax(scaling * query @ keys.transpose(-1, -2), dim=-1)
    assert_close(output, (share @ values).transpose(1, 2))


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("sink", [None, 0.7])
def test_dense_attention_of_a_row_has_soft_caps_and_sinks(
    cap: float | None, sink: float | None, tiny: LanguageModel
) -> None:
    module, scaling = tiny.model.model.layers[0].self_attn, 0.5
    query, key, value = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 9, 16), torch.randn(1, 2, 9, 16)
    options = {} if sink is None else {"s_aux": torch.full((4,), sink)}
    output = AttentionSession(DenseAttention(), seed=0).attend(
        module, query, key, value, scaling=scaling, softcap=cap, **options
    )
    keys, values = (kept.repeat_interleave(2, dim=1) for kept in (key, value))
    scores = scaling * query @ keys.transpose(-1, -2)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    weights = scores.exp()
    total = weights.sum(-1, keepdim=True) + (0 if sink is None else math.exp(sink))
    assert_close(output, (weights / total @ values).transpose(1, 2))
