"""Multi-round co-reference, answered by reading the conversation in the prompt."""

import re

import pytest

from sah.benchmarks.synthetic.coreference import Coreference
from sah.errors import ConfigurationError

ROUND = re.compile(r"User: Write a (.+)\n\nAssistant: ([^\n]+\n[^\n]+)\n\n")
LAST = re.compile(
    r"User: Prepend (\w{10}) to the (\d)(?:st|nd|rd|th) \(1 indexed\) (.+)\. Do not include any "
    r"other text in your response\.\n\nAssistant:"
)


def parts(example):
    """Return the solved example, and the rounds of the conversation, which must be all of it."""
    solved, conversation = example.context.split("======END EXAMPLE======\n\n")
    rounds = ROUND.findall(conversation)
    assert ROUND.sub("", conversation) == ""
    return solved, rounds


def answers(question, rounds):
    """Return the random string, the right piece and the others with the same request."""
    prefix, ordinal, request = LAST.fullmatch(question).groups()
    found = [piece for asked, piece in rounds if asked == request]
    right = found[int(ordinal) - 1]
    return prefix, right, [piece for piece in found if piece != right]


def made(tiny, seed=0, **settings):
    benchmark = Coreference(**{"context_tokens": 3000, "samples": 4, **settings})
    return benchmark.examples(tiny.prompts, seed=seed)


@pytest.mark.parametrize("context_tokens", [2600, 8000])
def test_only_the_piece_asked_for_is_right(tiny, prediction, context_tokens):
    benchmark = Coreference(context_tokens=context_tokens, samples=2)
    for seed in range(3):
        for example in benchmark.examples(tiny.prompts, seed=seed):

            def score(text, example=example):
                return benchmark.score_one(example, prediction(example.id, text=text)).score

            prefix, right, others = answers(example.question, parts(example)[1])
            assert score(f"{prefix}{right}") == 1
            assert score(f" {prefix} {right}\n") == 1
            assert score(f"{prefix}{others[0]}") < 0.9
            assert score(right) == 0


def test_as_many_requests_are_identical_as_the_subset_says(tiny):
    for example in made(tiny):
        _, rounds = parts(example)
        _, _, others = answers(example.question, rounds)
        assert len(others) + 1 == int(example.task[0])


def test_no_two_pieces_are_equal(tiny):
    for example in made(tiny, context_tokens=8000):
        solved, rounds = parts(example)
        pieces = [piece for _, piece in [*rounds, *ROUND.findall(solved)]]
        assert len(set(pieces)) == len(pieces)


def test_some_other_requests_share_the_form_or_the_topic(tiny):
    shared = set()
    for example in made(tiny, context_tokens=8000):
        _, rounds = parts(example)
        wanted = LAST.fullmatch(example.question).group(3)
        form, topic = wanted.split(" about ")
        for request, _ in rounds:
            if request != wanted:
                shared.add((request.startswith(form), request.endswith(topic)))
    assert shared == {(True, False), (False, True), (False, False)}


def test_the_example_before_the_conversation_is_solved_rightly(tiny):
    for example in made(tiny):
        solved, rounds = parts(example)
        (question,) = (found.group() for found in LAST.finditer(solved))
        prefix, right, others = answers(question, ROUND.findall(solved))
        assert len(others) == 1
        assert solved.endswith(f"{question} {prefix}{right}\n\n")
        assert not {right, *others} & {piece for _, piece in rounds}


def test_each_of_the_identical_requests_is_asked_for(tiny):
    examples = made(tiny, samples=16, subset="4_needles", context_tokens=2200)
    assert {LAST.fullmatch(item.question).group(2) for item in examples} == set("1234")


def test_less_than_a_round_of_the_budget_is_left(tiny):
    for context_tokens in (2600, 6000):
        for example in made(tiny, context_tokens=context_tokens):
            length = tiny.prompts.prompt_length(example) + example.max_new_tokens
            assert context_tokens - 250 < length <= context_tokens


def test_a_longer_context_keeps_question_and_answer(tiny):
    short, long = made(tiny), made(tiny, context_tokens=8000)
    for one, other in zip(short, long, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert len(parts(other)[1]) > len(parts(one)[1])


def test_a_sample_depends_only_on_its_number_and_the_seed(tiny):
    few = {item.id: item for item in made(tiny, samples=2)}
    many = {item.id: item for item in made(tiny, samples=4)}
    assert {name: many[name] for name in few} == few
    assert len({item.references for item in many.values()}) == 12


def test_the_places_of_the_identical_requests_are_noted(tiny):
    for example in made(tiny):
        _, rounds = parts(example)
        wanted = LAST.fullmatch(example.question).group(3)
        pieces = [piece for request, piece in rounds if request == wanted]
        needles = example.metadata["needles"]
        assert [needle["answer"][0] for needle in needles] == list("12345678")[: len(pieces)]
        for needle, piece in zip(needles, pieces, strict=True):
            place = example.context.index(piece, len(parts(example)[0]))
            assert needle["depth"] == pytest.approx(place / len(example.context), abs=1e-6)


def test_the_answer_always_fits_into_its_limit(tiny):
    for example in made(tiny, samples=6):
        assert len(tiny.prompts.tokenizer(example.references[0]).input_ids) < example.max_new_tokens


def test_needles_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ConfigurationError, match=r"context_tokens=1500 is too small.*8_needles"):
        made(tiny, context_tokens=1500, subset="8_needles")
