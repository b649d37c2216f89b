"""Rows of different lengths in one tensor hold what a list of separate tensors would hold."""

import random

import torch

from sah.attention.index import RowsBuffer
from sah.attention.stacked.row_lengths import RowLengths


def lengths_of(*keys):
    return RowLengths(keys, torch.device("cpu"))


def numbers(rows, count, seed=0):
    """Different numbers, [rows, 2, count, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, count, 3, generator=generator)


def test_a_row_is_what_was_written_and_appended():
    """A random history of decode steps and rows that leave, against one tensor a row."""
    draw = random.Random(0)
    keys = [4, 1, 7, 3, 7]
    lengths = lengths_of(*keys)
    buffer = RowsBuffer(numbers(1, 1), dim=2, lengths=lengths, room=8)
    rows = [numbers(1, count - 1, seed) for seed, count in enumerate(keys)]
    for row, part in enumerate(rows):
        buffer.write(row, part[:, :, :1])
        buffer.write(row, part[:, :, 1:], begin=min(1, part.shape[2]))
    for step in range(12):
        new = numbers(len(rows), 1, 100 + step)
        buffer.append(new)
        rows = [torch.cat([row, new[n : n + 1]], dim=2) for n, row in enumerate(rows)]
        assert lengths.keys == [row.shape[2] for row in rows]
        assert buffer.filled.shape == (len(rows), 2, max(lengths.keys), 3)
        for number, row in enumerate(rows):
            assert torch.equal(buffer.row(number), row)
            assert torch.equal(buffer.filled[number : number + 1, :, : row.shape[2]], row)
        if step % 4 == 3:  # the last row takes the place of one that has ended
            ended = draw.randrange(len(rows))
            last = len(rows) - 1
            moves = [(last, ended)] if ended < last else []
            buffer.keep(moves)
            rows[ended] = rows[last]
            rows.pop()
            lengths.keep([last if n == ended else n for n in range(last)])
        lengths.advance()
    assert len(rows) == 2
    assert max(lengths.keys) > 8  # beyond the room


def test_several_keys_are_appended_at_the_end_of_each_row():
    lengths = lengths_of(5, 3)
    buffer = RowsBuffer(numbers(1, 1), dim=-2, lengths=lengths, room=5)
    new = numbers(2, 2)
    buffer.append(new)
    assert torch.equal(buffer.filled[0, :, 3:5], new[0])
    assert torch.equal(buffer.filled[1, :, 1:3], new[1])


def test_the_key_dimension_may_be_the_last():
    lengths = lengths_of(2, 4)
    buffer = RowsBuffer(torch.zeros(1, 2, 3, 1), dim=-1, lengths=lengths, room=4)
    new = numbers(2, 3).transpose(1, 2).contiguous()[..., :1]  # B 3 2 1
    buffer.append(new.transpose(1, 2))
    assert torch.equal(buffer.row(0)[..., 1:], new.transpose(1, 2)[:1])
    assert torch.equal(buffer.row(1)[..., 3:], new.transpose(1, 2)[1:])


def test_what_was_there_survives_the_growth_beyond_the_room():
    lengths = lengths_of(3, 2)
    buffer = RowsBuffer(numbers(1, 1), dim=2, lengths=lengths, room=3)
    first, second = numbers(1, 3), numbers(1, 2, 1)
    buffer.write(0, first)
    buffer.write(1, second)
    for _ in range(5):
        lengths.advance()
        buffer.append(torch.ones(2, 2, 1, 3))
    ones = torch.ones(1, 2, 5, 3)
    assert torch.equal(buffer.row(0), torch.cat([first, ones], dim=2))
    assert torch.equal(buffer.row(1), torch.cat([second, ones], dim=2))
