"""Needle and question share no content word, and the associations alone lead to the answer."""

import re
from collections import Counter

import pytest

from sah.benchmarks.haystacks import prose
from sah.benchmarks.synthetic.associations import CATEGORIES, CHARACTERS
from sah.benchmarks.synthetic.no_literal_match import NoLiteralMatch, content_words
from sah.errors import ConfigurationError


def question_of(example):
    return re.match(r"Question: (.+?\?)", example.question)[1]


def text_of(example):
    return example.context.split("\n\n")[1]


def solve(example):
    """Return the characters of the sentences that name what is linked to the question."""
    question, text = question_of(example), text_of(example)
    found = set()
    for category in CATEGORIES:
        for association in category.associations:
            asked = association.asked if example.task == "one_hop" else association.beyond
            if question != category.question.format(asked=asked):
                continue
            for template in (*category.needles, *category.inverted):
                before, _, after = template.partition("{name}")
                pattern = re.escape(before).replace(r"\{hidden\}", association.hidden)
                pattern += r"(\w+)" + re.escape(after).replace(r"\{hidden\}", association.hidden)
                found.update(match[1] for match in re.finditer(pattern, text, re.IGNORECASE))
    return found


def stems(text):
    return {word[:4] for word in content_words(text)}


@pytest.fixture(scope="module")
def examples(samples):
    return [
        *samples(NoLiteralMatch, None, 1200, range(1), samples=12),
        *samples(NoLiteralMatch, None, 1500, range(1), samples=12, distractors=3),
        *samples(NoLiteralMatch, None, 6000, range(1), samples=2),
    ]


def test_the_associations_lead_to_exactly_one_character_who_scores_1(examples):
    benchmark = NoLiteralMatch()
    for example in examples:
        (name,) = solve(example)
        assert example.references == (name,)
        assert benchmark.tasks[example.task].score(example, f"It is {name}.").score == 1
        for other in set(CHARACTERS) - {name}:
            assert benchmark.tasks[example.task].score(example, other).score == 0


def test_no_needle_shares_a_content_word_with_a_question_that_it_answers():
    for category in CATEGORIES:
        for association in category.associations:
            asked = [association.asked, *filter(None, [association.beyond])]
            for template in (*category.needles, *category.inverted):
                needle = template.format(name="", hidden=association.hidden)
                for one in asked:
                    question = category.question.format(asked=one)
                    assert not stems(needle) & stems(question), (needle, question)


def test_only_the_needle_has_a_word_of_needle_or_question(examples):
    for example in examples:
        needles = example.metadata["needles"]
        text = text_of(example)
        assert len([name for name in CHARACTERS if re.search(rf"\b{name}\b", text)]) == len(needles)
        assert not content_words(question_of(example)) & content_words(text)


def test_needles_are_noted_where_they_are(examples):
    for example in examples:
        for needle in example.metadata["needles"]:
            start = round(needle["depth"] * len(example.context))
            assert needle["answer"] in example.context[start - 2 : start + 120]
        assert example.references[0] in [note["answer"] for note in example.metadata["needles"]]


def test_there_are_enough_associations_and_each_is_named_once():
    hidden = Counter(one.hidden for category in CATEGORIES for one in category.associations)
    assert len(hidden) >= 60
    assert set(hidden.values()) == {1}
    for category in CATEGORIES:
        for association in category.associations:
            others = [one for one in category.associations if one.asked != association.asked]
            assert len(others) >= 3
            others = [one for one in category.associations if one.beyond != association.beyond]
            assert len(others) >= 3 or not category.has_two_hops


def test_a_name_of_a_character_is_nowhere_else():
    sentences = [
        template.format(name="", hidden=one.hidden, asked=f"{one.asked} {one.beyond}").lower()
        for category in CATEGORIES
        for template in (*category.needles, *category.inverted, category.question)
        for one in category.associations
    ]
    text = "\n".join([*prose(), *sentences]).lower()
    for name in CHARACTERS:
        assert name.lower() not in text, name
        assert [one for one in CHARACTERS if name.lower() in one.lower()] == [name]


def test_both_orders_and_all_categories_occur(samples):
    examples = samples(NoLiteralMatch, "one_hop", 700, range(1), samples=40)
    groups = Counter(example.extras["groups"][0] for example in examples)
    assert set(groups) == {"default order", "inverted order"}
    questions = {question_of(example).split()[2] for example in examples}
    assert questions == {category.question.split()[2] for category in CATEGORIES}


def test_a_longer_context_keeps_needle_and_question(samples):
    short, long = (samples(NoLiteralMatch, None, length, range(1)) for length in (1000, 3000))
    for one, other in zip(short, long, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert len(other.context) > 2 * len(one.context)


@pytest.mark.parametrize("count", [-1, 4])
def test_a_number_of_distractors_out_of_range_is_refused(count):
    with pytest.raises(ConfigurationError, match=rf"distractors must be from 0 to 3, got {count}"):
        NoLiteralMatch(distractors=count)
