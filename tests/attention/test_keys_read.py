"""Density and rows read of an example, against counts key by key."""

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.attention.keys_read import ReadCounter

# B batch, H query heads, G key-value heads, Q queries, K keys


def call(heads, groups, queries, keys, selected, *, padding=(0,)):
    """Return the inputs and mask of one call; `selected` of its keys are selected."""
    batch = len(padding)
    visible = torch.ones(batch, 1, queries, keys, dtype=torch.bool).tril(keys - queries)
    for row, count in enumerate(padding):
        visible[row, ..., :count] = False
        visible[row, :, :count] = False
    inputs = AttentionInputs(
        query=torch.zeros(batch, heads, queries, 4),
        key=torch.zeros(batch, groups, keys, 4),
        value=torch.zeros(batch, groups, keys, 4),
        visibility=Visibility(visible),
        scaling=1.0,
    )
    return inputs, AttentionMask.empty(inputs).add(selected)


def shares(inputs, mask):
    """Return the density of each query and head, and the rows read of each query and group."""
    density, rows = [], []
    batch, heads, queries, keys = mask.selected.shape
    groups = inputs.key.shape[1]
    for b in range(batch):
        for q in range(queries):
            seen = [k for k in range(keys) if inputs.visible[b, 0, q, k]]
            if not seen:
                continue
            reads = [{k for k in seen if mask.selected[b, h, q, k]} for h in range(heads)]
            density += [len(read) / len(seen) for read in reads]
            size = heads // groups
            for g in range(groups):
                union = set().union(*reads[g * size : (g + 1) * size])
                rows.append(len(union) / len(seen))
    return density, rows


def random_call(seed, heads, groups, queries, keys, **options):
    drawn = torch.Generator().manual_seed(seed)
    batch = len(options.get("padding", (0,)))
    selected = torch.rand(batch, heads, queries, keys, generator=drawn) < 0.3
    return call(heads, groups, queries, keys, selected, **options)


def test_the_means_weigh_every_query_of_every_layer_equally():
    calls = [
        random_call(0, 4, 2, 5, 9),
        random_call(1, 4, 2, 1, 10),
        random_call(2, 4, 2, 3, 8, padding=(0, 2)),
        random_call(3, 6, 1, 2, 12),
    ]
    counter = ReadCounter()
    density = rows = 0.0
    queries = 0
    for inputs, mask in calls:
        counter.add(inputs, mask)
        by_head, by_group = shares(inputs, mask)
        density += sum(by_head) / inputs.query.shape[1]
        rows += sum(by_group) / inputs.key.shape[1]
        queries += len(by_group) // inputs.key.shape[1]
    counter.add_dense(7)
    read = counter.total()
    # Two of the six queries in the padded call see no key.
    assert (read.sparse_queries, read.dense_queries, read.queries) == (queries, 7, queries + 7)
    assert queries == 5 + 1 + 4 + 2
    assert read.density == pytest.approx((density + 7) / (queries + 7))
    assert read.rows_read == pytest.approx((rows + 7) / (queries + 7))


def test_heads_of_a_group_that_read_the_same_keys_read_as_many_rows():
    one = torch.rand(1, 2, 3, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    counter = ReadCounter()
    counter.add(*call(8, 2, 3, 9, one.repeat_interleave(4, dim=1)))
    read = counter.total()
    assert read.rows_read == pytest.approx(read.density)


def test_heads_of_a_group_that_share_no_key_read_as_many_rows_as_all_of_them():
    own = torch.zeros(1, 4, 1, 8, dtype=torch.bool)
    for head in range(4):
        own[0, head, 0, 2 * head : 2 * head + 2] = True
    counter = ReadCounter()
    counter.add(*call(4, 1, 1, 8, own))
    read = counter.total()
    assert (read.density, read.rows_read) == (0.25, 1.0)


def test_without_grouped_queries_rows_read_are_the_density():
    counter = ReadCounter()
    counter.add(*random_call(0, 4, 4, 3, 9))
    read = counter.total()
    assert read.rows_read == pytest.approx(read.density)


def test_nothing_counted_is_none():
    assert ReadCounter().total() is None


def test_a_mean_over_sparse_layers_is_extended_by_the_dense_ones():
    counter = ReadCounter()
    counter.add(*random_call(0, 4, 2, 6, 9))
    counter.add_dense(2)
    read = counter.total()
    assert read.with_dense_layers(0.4, dense=1.0) == pytest.approx((6 * 0.4 + 2) / 8)
    assert read.with_dense_layers(0.4, dense=0.0) == pytest.approx(6 * 0.4 / 8)
    assert read.with_dense_layers(None, dense=0.0) is None
