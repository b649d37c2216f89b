"""A layer of a batch shows each row the keys that it has alone."""

import torch

from sah.attention.eviction.kept import KeptKeys
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.stacked.stacked_layer import StackedLayer

GROUPS, DIM, VALUE_DIM = 2, 3, 4


def random_part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = 1, GROUPS, count
    return (
        torch.randn(*shape, DIM, generator=generator),
        torch.randn(*shape, VALUE_DIM, generator=generator),
    )


def joined(parts):
    return tuple(torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True))


class Batch:
    """A stacked layer, and the keys and values of each row one by one."""

    def __init__(self, sizes, *, kept=None, window=None, room=20):
        """Make rows of parts with these numbers of keys, before the first step."""
        parts = [
            [random_part(count, 10 * row + n) for n, count in enumerate(counts)]
            for row, counts in enumerate(sizes)
        ]
        self.rows = [joined(of_row) for of_row in parts]
        self.lengths = RowLengths([sum(counts) + 1 for counts in sizes], torch.device("cpu"))
        self.kept = kept or [None] * len(sizes)
        self.layer = StackedLayer(parts, self.lengths, room=room, kept=self.kept, window=window)
        self.steps = 0
        self._append()

    def step(self):
        self.lengths.advance()
        self._append()

    def _append(self):
        self.steps += 1
        new = [random_part(1, 1000 * self.steps + row) for row in range(len(self.rows))]
        self.layer.append(*(torch.cat(tensors) for tensors in zip(*new, strict=True)))
        self.rows = [joined([row, one]) for row, one in zip(self.rows, new, strict=True)]


def padded(keeping, context=6):
    """What is left of a context whose heads keep these numbers of keys."""
    alive = torch.arange(context) < torch.tensor(keeping)[:, None]  # G C
    return KeptKeys.of(alive[None], torch.zeros(1, 2, context, DIM), torch.zeros(1, 2, context, 4))


def test_the_parts_of_a_row_follow_each_other():
    batch = Batch([[3, 2], [7], [1, 1, 1]])
    batch.step()
    for number, (key, value) in enumerate(batch.rows):
        count = key.shape[2]
        assert torch.equal(batch.layer.key[number : number + 1, :, :count], key)
        assert torch.equal(batch.layer.value[number : number + 1, :, :count], value)
        for one, expected in zip(batch.layer.row(number), (key, value), strict=True):
            assert torch.equal(one, expected)


def test_the_last_keys_are_those_of_each_row():
    batch = Batch([[3], [7]])
    batch.step()
    for found, name in zip(batch.layer.last(3), (0, 1), strict=True):
        assert torch.equal(found, torch.cat([row[name][:, :, -3:] for row in batch.rows]))


def test_a_row_of_a_layer_with_a_window_is_what_is_in_it():
    batch = Batch([[3], [7]], window=5)
    for number, (key, value) in enumerate(batch.rows):
        found_key, found_value = batch.layer.row(number)
        assert torch.equal(found_key, key[:, :, -5:])
        assert torch.equal(found_value, value[:, :, -5:])


def test_a_query_sees_the_keys_of_its_row_and_no_padding():
    # Row 0 keeps 4 and 2 rows of a context of 6 keys, row 1 everything.
    for window in (None, 3):
        batch = Batch([[4, 2], [9]], kept=[padded([4, 2]), None], window=window)
        for _ in range(3):
            visible = batch.layer.visibility(group_size=2).keys.expand(2, 4, 1, -1)
            longest = max(batch.lengths.keys)
            expected = [
                [
                    [
                        [
                            key < count
                            and (window is None or key >= count - window)
                            and not (row == 0 and head // 2 == 1 and 2 <= key < 4)
                            for key in range(longest)
                        ]
                    ]
                    for head in range(4)
                ]
                for row, count in enumerate(batch.lengths.keys)
            ]
            assert visible.tolist() == expected
            batch.step()


def test_padding_stays_hidden_beyond_the_room():
    batch = Batch([[4], [2]], kept=[padded([4, 2]), padded([1, 2])], room=5)
    for _ in range(4):
        batch.step()
    visible = batch.layer.visibility(group_size=1).keys[:, :, 0]  # B G K
    assert visible[0].tolist() == [[True] * 9, [True] * 2 + [False] * 2 + [True] * 5]
    assert visible[1].tolist() == [
        [True, False] + [True] * 5 + [False] * 2,
        [True] * 7 + [False] * 2,
    ]


def test_a_row_takes_keys_and_padding_along_to_its_new_place():
    kept = [None, padded([4, 2]), padded([1, 3])]
    batch = Batch([[3], [4], [3]], kept=kept)
    batch.layer.keep([(2, 0)], 2)
    batch.lengths.keep([2, 1])
    batch.rows = [batch.rows[2], batch.rows[1]]
    batch.step()
    assert batch.layer.kept == [kept[2], kept[1]]
    for number, row in enumerate(batch.rows):
        for one, expected in zip(batch.layer.row(number), row, strict=True):
            assert torch.equal(one, expected)
    visible = batch.layer.visibility(group_size=1).keys[:, :, 0]
    assert visible[0].tolist() == [
        [True] + [False] * 2 + [True] * 2 + [False],
        [True] * 5 + [False],
    ]
    assert visible[1].tolist() == [[True] * 6, [True] * 2 + [False] * 2 + [True] * 2]
