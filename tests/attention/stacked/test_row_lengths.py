"""The numbers of keys of a batch's rows, on the host and on the device."""

import pytest
import torch

from sah.attention.stacked.row_lengths import RowLengths


def lengths_of(*keys):
    return RowLengths(keys, torch.device("cpu"))


def test_a_step_adds_a_key_to_every_row():
    lengths = lengths_of(4, 9)
    assert (lengths.keys, lengths.longest, lengths.steps) == ([4, 9], 9, 0)
    lengths.advance()
    assert (lengths.keys, lengths.longest, lengths.steps) == ([5, 10], 10, 1)
    assert lengths.count.tolist() == [5, 10]
    assert lengths.rows.tolist() == [0, 1]


def test_rows_that_leave_are_forgotten_on_host_and_device():
    lengths = lengths_of(4, 9, 6)
    lengths.advance()
    lengths.keep([2, 0])
    assert lengths.keys == lengths.count.tolist() == [7, 5]
    assert (lengths.longest, lengths.steps) == (7, 1)
    assert lengths.rows.tolist() == [0, 1]
    lengths.advance()
    assert lengths.keys == lengths.count.tolist() == [8, 6]


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_keys_are_at_the_end_of_each_row(count):
    lengths = lengths_of(4, 9)
    expected = [[n - count + key for key in range(count)] for n in (4, 9)]
    assert lengths.last(count).tolist() == expected


def test_what_is_cached_belongs_to_one_step_and_its_rows():
    lengths, made = lengths_of(4, 9), []

    def make():
        made.append(list(lengths.keys))
        return len(made)

    assert [lengths.cached("a", make), lengths.cached("a", make)] == [1, 1]
    assert lengths.cached("b", make) == 2
    lengths.advance()
    assert [lengths.cached("a", make), lengths.cached("a", make)] == [3, 3]
    lengths.keep([1])
    assert lengths.cached("a", make) == 4
    assert made == [[4, 9], [4, 9], [5, 10], [10]]
