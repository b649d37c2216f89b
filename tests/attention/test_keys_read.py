"""Density, rows read and keys read of an example, against counts key by key."""

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.attention.keys_read import ReadCounter, visible_keys

# B batch, H query heads, G key-value heads, Q queries, K keys


def call(heads, groups, queries, keys, selected, *, padding=(0,), layer=0):
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
        layer_idx=layer,
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
    counter.add_dense(1, batch=1, queries=7, keys=20)
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
    counter.add_dense(1, batch=1, queries=2, keys=9)
    read = counter.total()
    assert read.with_dense_layers(0.4, dense=1.0) == pytest.approx((6 * 0.4 + 2) / 8)
    assert read.with_dense_layers(0.4, dense=0.0) == pytest.approx(6 * 0.4 / 8)
    assert read.with_dense_layers(None, dense=0.0) is None


def test_keys_read_are_summed_over_queries_and_averaged_over_heads_and_layers():
    """Two sparse layers and a dense one read a question of 3 tokens and one decoded token."""
    counter = ReadCounter()
    total = 0
    for layer in (0, 2):
        for queries, keys in ((3, 8), (1, 9)):
            inputs, mask = random_call(layer + keys, 4, 2, queries, keys, layer=layer)
            counter.add(inputs, mask)
            total += sum(mask.selected.flatten().tolist()) / 4
    counter.add_dense(1, batch=1, queries=3, keys=8)
    counter.add_dense(1, batch=1, queries=1, keys=9)
    dense = (6 + 7 + 8) + 9
    assert counter.total().keys == pytest.approx((total + dense) / 3)


def test_padding_reads_no_key():
    everything = torch.ones(2, 4, 3, 8, dtype=torch.bool)
    counter = ReadCounter()
    counter.add(*call(4, 2, 3, 8, everything, padding=(0, 2)))
    # Queries at positions 5, 6 and 7. In the second row two keys and two queries are padding.
    assert counter.total().keys == (6 + 7 + 8) + (8 - 2)


@pytest.mark.parametrize(("before", "queries"), [(0, 1), (0, 5), (7, 1), (7, 4), (3, 0)])
def test_consecutive_queries_see_all_keys_up_to_their_own(before, queries):
    seen = sum(key <= before + query for query in range(queries) for key in range(before + queries))
    assert visible_keys(before, queries) == seen
