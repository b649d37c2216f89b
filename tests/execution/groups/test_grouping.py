"""What is prefilled and decoded together depends on the limits and the data alone."""

import pytest

from sah.execution.groups.grouping import AskedContext, grouped
from sah.models.prompts import EncodedPrompt


def asked(tokens, questions):
    """A context of this many tokens with questions that take, with their answers, these many."""
    prompts = [
        EncodedPrompt(context_ids=[0] * tokens, question_ids=[0] * (size - 1)) for size in questions
    ]
    rooms = [1] * len(questions)
    return AskedContext(examples=list(range(len(questions))), prompts=prompts, rooms=rooms)


def shape(contexts, batch_rows, batch_tokens=10**9):
    """The number of contexts, and the rows of each batch, of every group."""
    found = grouped(iter(contexts), batch_rows=batch_rows, batch_tokens=batch_tokens)
    return [(len(group.contexts), group.batches) for group in found]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [(1, [[(0, 0)], [(0, 1)]]), (1, [[(0, 0)]]), (1, [[(0, 0)]])]),
        (2, [(1, [[(0, 0), (0, 1)]]), (2, [[(0, 0), (1, 0)]])]),
        (3, [(2, [[(0, 0), (0, 1), (1, 0)]]), (1, [[(0, 0)]])]),
        (8, [(3, [[(0, 0), (0, 1), (1, 0), (2, 0)]])]),
    ],
)
def test_consecutive_contexts_are_together_as_long_as_their_questions_fit(rows, expected):
    contexts = [asked(100, [10, 10]), asked(50, [10]), asked(70, [10])]
    assert shape(contexts, rows) == expected


def test_a_context_with_more_questions_than_rows_is_a_group_of_several_batches():
    assert shape([asked(10, [5]), asked(10, [5] * 5), asked(10, [5])], 2) == [
        (1, [[(0, 0)]]),
        (1, [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]),
        (1, [[(0, 0)]]),
    ]


def test_the_tokens_of_a_batch_are_those_of_contexts_questions_and_answers():
    contexts = [asked(100, [10]), asked(100, [10]), asked(100, [10])]
    assert shape(contexts, 8, 330) == [(3, [[(0, 0), (1, 0), (2, 0)]])]
    assert shape(contexts, 8, 329) == [(2, [[(0, 0), (1, 0)]]), (1, [[(0, 0)]])]
    # One that is too long by itself is still answered.
    assert shape(contexts, 8, 1) == 3 * [(1, [[(0, 0)]])]


def test_every_row_of_a_batch_has_room_for_the_longest():
    contexts = [asked(90, [10]), asked(10, [10]), asked(10, [10])]
    assert shape(contexts, 8, 300) == [(3, [[(0, 0), (1, 0), (2, 0)]])]
    assert shape(contexts, 8, 299) == [(2, [[(0, 0), (1, 0)]]), (1, [[(0, 0)]])]
    # Answers are longer than the context, so that rows do not take turns in its cache.
    contexts = [asked(10, [90, 20, 20])]
    assert shape(contexts, 8, 300) == [(1, [[(0, 0), (0, 1), (0, 2)]])]
    assert shape(contexts, 8, 299) == [(1, [[(0, 0), (0, 1)], [(0, 2)]])]


def test_a_shared_context_counts_once_in_a_batch():
    assert shape([asked(100, [10, 10, 10])], 8, 120) == [(1, [[(0, 0), (0, 1)], [(0, 2)]])]


def test_questions_without_a_context_are_bounded_by_their_answers():
    assert shape([asked(0, [30, 30, 30, 30])], 8, 60) == [(1, [[(0, 0), (0, 1)], [(0, 2), (0, 3)]])]
