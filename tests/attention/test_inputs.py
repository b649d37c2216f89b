"""Attention inputs: scores, visibility, chunks and noise."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

Make = Callable[..., Any]


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_scores_are_scaled_and_capped_products_with_the_head_s_own_key_group(
    softcap: float | None, make_inputs: Make
) -> None:
    inputs = make_inputs(heads=6, groups=2, queries=3, padding=(0, 0), softcap=softcap)
    key = inputs.key.double().repeat_interleave(3, dim=1)
    expected = torch.einsum("bhqd,bhkd->bhqk", inputs.query.double(), key) * inputs.scaling
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    assert_close(inputs.scores.double(), expected, atol=2e-6, rtol=2e-6)


def test_visible_keys_are_counted_from_each_query_s_first_one(make_inputs: Make) -> None:
    inputs = make_inputs(queries=2, keys=5, padding=(0, 3))
    assert inputs.visible_count.flatten().tolist() == [4, 5, 1, 2]
    assert inputs.visible_rank[1, 0, 1].tolist() == [0, 0, 0, 1, 2]


def test_chunks_are_the_queries_in_order_with_their_positions(make_inputs: Make) -> None:
    inputs = make_inputs(queries=5, keys=9, padding=(0, 1))
    chunks = inputs.chunks(2)
    assert [chunk.query.shape[2] for chunk in chunks] == [2, 2, 1]
    assert [chunk.first_position for chunk in chunks] == [4, 6, 8]
    assert torch.equal(torch.cat([chunk.query for chunk in chunks], dim=2), inputs.query)
    assert torch.equal(torch.cat([chunk.visible for chunk in chunks], dim=2), inputs.visible)
    assert all(chunk.key is inputs.key and chunk.value is inputs.value for chunk in chunks)
    assert all(chunk.indexes is inputs.indexes for chunk in chunks)


def test_a_chunk_does_not_reuse_the_scores_of_the_whole(make_inputs: Make) -> None:
    inputs = make_inputs(queries=4)
    whole = inputs.scores
    second = inputs.chunks(2)[1]
    assert_close(second.scores, whole[:, :, 2:])


def test_noise_is_uniform_and_the_same_however_the_queries_are_chunked(make_inputs: Make) -> None:
    def fresh() -> Any:
        return make_inputs(queries=5, keys=400, padding=(0, 0))

    noise = fresh().uniform()
    assert noise.min() >= 0
    assert noise.max() < 1
    # 16,000 numbers: the mean of uniform ones has a standard error of 0.0023.
    assert abs(noise.mean() - 0.5) < 4 * 0.0023
    for size in (1, 2, 5):
        parts = torch.cat([chunk.uniform() for chunk in fresh().chunks(size)], dim=2)
        assert torch.equal(parts, noise)


def test_noise_differs_between_rows_heads_queries_seeds_and_calls(make_inputs: Make) -> None:
    inputs = make_inputs(queries=3, padding=(0, 0))
    other_seed = dataclasses.replace(inputs, seed=1)
    draws = [inputs.uniform(), inputs.uniform(), other_seed.uniform()]
    rows = torch.stack(draws).flatten(0, 3)
    assert len({tuple(row.tolist()) for row in rows}) == len(rows) == 3 * 2 * 4 * 3
