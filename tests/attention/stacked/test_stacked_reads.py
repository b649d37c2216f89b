"""What a row reads in a batch is counted as its own counter would count it."""

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.keys_read import ReadCounter
from sah.attention.stacked.batch_rows import BatchRows
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.stacked.stacked_reads import StackedReads
from sah.attention.visibility import Visibility

HEADS, DIM = 4, 3


class Batch:
    """Random selections of the rows of a batch, counted together and row by row."""

    def __init__(self, keys, groups):
        self.lengths = RowLengths(keys, torch.device("cpu"))
        self.groups = groups
        self.present = list(range(len(keys)))
        self.reads = StackedReads(len(keys))
        self.alone = [ReadCounter() for _ in keys]
        self.densities = [[] for _ in keys]
        self.generator = torch.Generator().manual_seed(0)

    def step(self, layers=(0, 2)):
        for layer in layers:
            inputs, mask = self._call(layer)
            self.reads.add(inputs, mask)
            for place, row in enumerate(self.present):
                keys = self.lengths.keys[place]
                selected = mask.selected[place, :, 0, :keys]
                self.densities[row].append(selected.float().mean().item())
                self.alone[row].add(*self._single(layer, selected))
        self.reads.end_step()
        self.lengths.advance()

    def leave(self, row):
        """Let a row go; the last one takes its place."""
        place, counter = self.present.index(row), ReadCounter()
        self.reads.move_to(counter, place)
        last = len(self.present) - 1
        order = [last if number == place else number for number in range(last)]
        self.present = [self.present[number] for number in order]
        if order:
            self.reads.keep(order)
            self.lengths.keep(order)
        return counter.total()

    def _call(self, layer):
        rows, longest = len(self.present), self.lengths.longest
        visibility = Visibility.of_rows(self.lengths)
        drawn = torch.rand(rows, HEADS, 1, longest, generator=self.generator) < 0.4
        batch = BatchRows(
            lengths=self.lengths,
            seeds=[0] * rows,
            context_rows=[0] * rows,
            kept=[None] * rows,
            index=lambda owner, build: None,
        )
        return self._inputs(layer, rows, visibility, rows=batch), AttentionMask(
            visible=visibility.keys, selected=drawn & visibility.keys
        )

    def _single(self, layer, selected):
        visibility = Visibility(torch.ones(1, 1, 1, selected.shape[-1], dtype=torch.bool))
        mask = AttentionMask(visible=visibility.keys, selected=selected[None, :, None])
        return self._inputs(layer, 1, visibility), mask

    def _inputs(self, layer, count, visibility, **options):
        keys = visibility.keys.shape[-1]
        return AttentionInputs(
            query=torch.zeros(count, HEADS, 1, DIM),
            key=torch.zeros(count, self.groups, keys, DIM),
            value=torch.zeros(count, self.groups, keys, DIM),
            visibility=visibility,
            scaling=1.0,
            layer_idx=layer,
            **options,
        )


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_rows_are_counted_as_alone_whenever_they_leave(groups):
    batch = Batch([5, 12, 7], groups)
    totals = {}
    batch.step()
    batch.step()
    totals[0] = batch.leave(0)
    batch.step()
    totals[2] = batch.leave(2)
    batch.step()
    batch.step()
    totals[1] = batch.leave(1)
    for row, steps in [(0, 2), (1, 5), (2, 3)]:
        expected = batch.alone[row].total()
        assert vars(totals[row]) == pytest.approx(vars(expected))
        assert totals[row].sparse_queries == 2 * steps
        mean = sum(batch.densities[row]) / len(batch.densities[row])
        assert totals[row].density == pytest.approx(mean)


def test_keys_read_are_means_over_the_layers_that_were_ever_sparse():
    batch = Batch([6, 9], 2)
    batch.step(layers=[0])
    batch.step(layers=[0, 1])
    for row in (1, 0):
        assert batch.leave(row).keys == pytest.approx(batch.alone[row].total().keys)


def test_a_row_without_sparse_calls_has_read_nothing():
    assert Batch([6, 9], 2).leave(1) is None
