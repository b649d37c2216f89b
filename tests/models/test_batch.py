"""Questions decoded in one batch get the answers they would get one by one, from one cache."""

import pytest
import torch

from sah.attention import DenseAttention, EncodedKeys, SparseAttention
from sah.attention.session import AttentionSession
from sah.maskers.oracle_top_k import OracleTopK
from sah.models.batch import Row, answer_rows
from sah.models.generation import Generation
from sah.models.thoughts import Thinking, ThoughtMarks

CONTEXT = [1 + (7 * n) % 390 for n in range(300)]
QUESTIONS = {
    "A": ([5 + (11 * n) % 380 for n in range(30)], 12),
    "B": ([9 + 3 * n for n in range(7)], 5),
    "C": ([40, 2, 77], 1),
    "D": ([200], 12),
}
ATTENTIONS = ("dense", "sparse", "streaming_llm", "oracle_top_k", "oracle_top_p", "random_sampling")


class RecordingSampler:
    """A sampler that records the logits it is given."""

    def __init__(self, sampler):
        self.sampler = sampler
        self.logits = []

    def choose(self, logits):
        self.logits.append(logits.clone())
        return self.sampler.choose(logits)


def one_by_one(model, context, session, generation):
    answers = {}
    for name, (ids, limit) in QUESTIONS.items():
        session.begin_example(name)
        sampler = RecordingSampler(generation.sampler(0, name, model.device))
        answer = model.answer(context, ids, session=session, sampler=sampler, max_new_tokens=limit)
        answers[name] = (answer, session.density(), sampler.logits)
    return answers


def together(model, context, session, generation, turns=None, **options):
    rows = [
        Row(
            example_id=name,
            context=context,
            question_ids=ids,
            session=session.fork(),
            sampler=RecordingSampler(generation.sampler(0, name, model.device)),
            max_new_tokens=limit,
            begin_turn=lambda name=name: turns.append(name) if turns is not None else None,
        )
        for name, (ids, limit) in QUESTIONS.items()
    ]
    answers = answer_rows(model, rows, **options)
    return {
        row.example_id: (answer, row.session.density(), row.sampler.logits)
        for row, answer in zip(rows, answers, strict=True)
    }


def start(model, attention):
    context = model.prefill(CONTEXT, reserve_tokens=50)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length)
    return context, session


@pytest.mark.parametrize(
    "generation", [Generation(), Generation(temperature=1.5)], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_batch_gives_the_answers_of_single_questions(tiny, preset, name, generation):
    context, session = start(tiny, preset(name))
    single = one_by_one(tiny, context, session, generation)
    batch = together(tiny, context, session, generation)
    for question, (answer, density, logits) in single.items():
        other, other_density, other_logits = batch[question]
        assert other.token_ids == answer.token_ids
        assert (other.finish_reason, other.steps) == (answer.finish_reason, answer.steps)
        assert other_density == pytest.approx(density)
        for one, same in zip(logits, other_logits, strict=True):
            # Not bit-identical: products of another shape round differently.
            torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)
    assert (
        one_by_one(tiny, context, session, generation)["A"][0].token_ids == single["A"][0].token_ids
    )


@pytest.mark.parametrize("generation", [Generation(), Generation(temperature=1.5)])
def test_each_token_that_ends_a_thought_is_forced_once(tiny, generation):
    """The mark has three tokens, and the thoughts of the rows begin and end together."""
    mark = [7, 300, 7]
    thinking = Thinking(
        marks=ThoughtMarks(begin="<think>", end=tiny.prompts.decode(mark)),
        decode=tiny.prompts.decode,
        is_open=True,
        budget=2,
        end_ids=mark,
    )
    context, session = start(tiny, DenseAttention())
    rows = [
        Row(
            example_id=name,
            context=context,
            question_ids=ids,
            session=session.fork(),
            sampler=generation.sampler(0, name, tiny.device),
            max_new_tokens=4,
            thinking=thinking,
        )
        for name, (ids, _) in QUESTIONS.items()
    ]
    for row, answer in zip(rows, answer_rows(tiny, rows), strict=True):
        assert answer.token_ids[2:5] == mark
        assert answer.thought.tokens == 2
        alone = tiny.answer(
            context,
            row.question_ids,
            session=session.fork(),
            sampler=generation.sampler(0, row.example_id, tiny.device),
            max_new_tokens=4,
            thinking=thinking,
        )
        assert answer.token_ids == alone.token_ids


class RowByRow(OracleTopK):
    """Not `batched` itself."""


@pytest.mark.parametrize("kind", [OracleTopK, RowByRow])
def test_questions_of_a_batch_reuse_their_own_selections(tiny, kind):
    answers = {}
    for every in (1, 4):
        masker = kind(fraction=0.1, every=every)
        context, session = start(tiny, SparseAttention(name="top", maskers={"top": masker}))
        answers[every] = one_by_one(tiny, context, session, Generation())
        batch = together(tiny, context, session, Generation())
        for question, (answer, density, logits) in answers[every].items():
            assert batch[question][0].token_ids == answer.token_ids
            assert batch[question][1] == pytest.approx(density)
            for one, same in zip(logits, batch[question][2], strict=True):
                torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)
    # Question and first decode step select afresh, the next steps do not.
    always, reusing = (answers[every]["A"][2] for every in (1, 4))
    assert torch.equal(always[0], reusing[0])
    assert torch.equal(always[1], reusing[1])
    assert not torch.equal(always[2], reusing[2])


@pytest.mark.parametrize("name", ATTENTIONS)
def test_rows_that_take_turns_have_the_logits_of_rows_side_by_side(tiny, preset, name):
    context, session = start(tiny, preset(name))
    side_by_side = together(tiny, context, session, Generation())
    in_turn = together(tiny, context, session, Generation(), stacked_tokens=0)
    for question, (answer, density, logits) in in_turn.items():
        other, other_density, other_logits = side_by_side[question]
        assert other.token_ids == answer.token_ids
        assert other_density == pytest.approx(density)
        for one, same in zip(logits, other_logits, strict=True):
            torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stacked_tokens", [0, 10**6], ids=["in turn", "side by side"])
def test_the_context_is_not_changed(tiny, preset, stacked_tokens):
    context, session = start(tiny, preset("sparse"))
    layers = context.cache.layers
    before = [(layer.keys.data_ptr(), layer.keys.clone()) for layer in layers]
    together(tiny, context, session, Generation(), stacked_tokens=stacked_tokens)
    for layer, (address, keys) in zip(context.cache.layers, before, strict=True):
        assert layer.keys.data_ptr() == address
        assert torch.equal(layer.keys, keys)


def test_rows_take_turns_in_a_context_too_long_to_copy(tiny, preset):
    context, session = start(tiny, preset("sparse"))
    turns = []
    together(tiny, context, session, Generation(), turns, stacked_tokens=4 * context.length)
    # A turn begins the question; then there is one in every layer until the answer ends.
    assert turns[:4] == ["A", "B", "C", "D"]
    assert turns.count("C") == 1 + 1 * 2
    assert turns.count("B") == 1 + 5 * 2


def test_every_row_of_the_copy_has_room_for_the_longest(tiny):
    def turns_of(stacked_tokens):
        turns = []
        rows = [
            Row(
                example_id=str(length),
                context=tiny.prefill(CONTEXT[:length], reserve_tokens=20),
                question_ids=[200],
                session=AttentionSession(DenseAttention(), seed=0),
                sampler=Generation().sampler(0, str(length), tiny.device),
                max_new_tokens=3,
                begin_turn=lambda length=length: turns.append(length),
            )
            for length in (280, 30, 30)
        ]
        answer_rows(tiny, rows, stacked_tokens=stacked_tokens)
        return turns

    # Questions take turns in both layers, and so do answers if they are not copied.
    assert len(turns_of(3 * (280 + 20))) == 3 + 3 * 2
    assert len(turns_of(3 * (280 + 20) - 1)) == 3 + 3 * 2 * 3


def test_questions_of_a_batch_pass_through_the_model_together(tiny, preset, calls):
    context, session = start(tiny, preset("sparse"))
    passes = calls(tiny.model.get_input_embeddings(), "forward")
    together(tiny, context, session, Generation())
    lengths = [ids.numel() for (ids,) in passes]
    # D is decoded longest, B not at all after its fifth token.
    assert lengths == [30 + 7 + 1 + 3, 3, *[3] * 3, *[2] * 7]


def test_a_few_questions_pass_through_the_model_together_if_they_are_long(tiny, calls):
    contexts = [tiny.prefill([3, 5, 7], reserve_tokens=800) for _ in range(4)]
    rows = [
        Row(
            example_id=str(number),
            context=context,
            question_ids=CONTEXT[:1] * length,
            session=AttentionSession(DenseAttention(), seed=0),
            sampler=Generation().sampler(0, str(number), tiny.device),
            max_new_tokens=1,
        )
        for number, (context, length) in enumerate(zip(contexts, (700, 324, 1, 700), strict=True))
    ]
    passes = calls(tiny.model.get_input_embeddings(), "forward")
    answers = answer_rows(tiny, rows)
    assert [ids.numel() for (ids,) in passes] == [1024, 701]
    assert sum(answer.seconds for answer in answers) > 0


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_dense_questions_are_computed_by_the_model(tiny, preset, name):
    context, session = start(tiny, preset(name))
    batch = together(tiny, context, session, Generation(), dense_question=True)
    for question, (ids, limit) in QUESTIONS.items():
        session.begin_example(question)
        sampler = RecordingSampler(Generation().sampler(0, question, tiny.device))
        answer = tiny.answer(
            context,
            ids,
            session=session,
            sampler=sampler,
            max_new_tokens=limit,
            dense_question=True,
        )
        other, density, logits = batch[question]
        assert other.token_ids == answer.token_ids
        assert density == session.density()
        for one, same in zip(sampler.logits, logits, strict=True):
            torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)


def test_rows_of_a_model_with_sliding_windows_get_their_own_answers(sliding):
    context, session = start(sliding, DenseAttention())
    single = one_by_one(sliding, context, session, Generation())
    batch = together(sliding, context, session, Generation())
    for question, (answer, _, logits) in single.items():
        assert batch[question][0].token_ids == answer.token_ids
        for one, same in zip(logits, batch[question][2], strict=True):
            torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)


def test_an_index_holds_only_the_keys_of_its_own_question(tiny):
    """An index holds the keys of the context and of its question, and no others."""
    seen = []

    def unencoded(key, value):
        return EncodedKeys(lambda key, value: [key], key, value, dim=2)

    def masker(inputs, mask):
        (keys,) = inputs.index("probe", unencoded).codes
        seen.append(torch.equal(keys, inputs.key))
        return mask.add(inputs.visible)

    context, session = start(tiny, SparseAttention(name="probe", maskers={"probe": masker}))
    together(tiny, context, session, Generation())
    assert len(seen) > 20
    assert all(seen)
