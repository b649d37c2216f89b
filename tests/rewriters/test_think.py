"""Channels that ThinK keeps, by its definition and by kvpress."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.rewriters.think import ThinK


def kept_of(layer: Any, every: int = 1) -> KeptKeys:
    alive = torch.zeros(layer.key.shape[:3], dtype=torch.bool)
    alive[..., ::every] = True
    alive[:, 1, 100:] = False
    return KeptKeys.of(alive, layer.key, layer.value)


@pytest.mark.parametrize("every", [1, 3])
def test_the_channels_with_the_least_energy_of_queries_and_keys_are_zero(
    every: int, context_layers: Callable[..., Any]
) -> None:
    layer = context_layers(200)[1]
    kept = kept_of(layer, every)
    found = ThinK(fraction=0.7, window=8).at_context(layer, kept)
    for head, count in ((0, 200), (1, 100)):
        queries = layer.witnessed.queries[0, 2 * head : 2 * head + 2, -8:]
        energy = (queries**2).mean((0, 1)) * (layer.key[0, head, :count:every] ** 2).mean(0)
        # 12 of 16 channels: 11.2 rounded up.
        stay = energy >= energy.sort(descending=True).values[11]
        rows = layer.key[0, head, :count:every]
        assert int(stay.sum()) == 12
        assert torch.equal(found.key[0, head, : len(rows)], rows * stay)
    assert torch.equal(found.value, kept.rows_of(layer.value))
    rows = len(range(0, 200, every)) + len(range(0, 100, every))
    assert found.packed_bytes == rows * (12 + 16) * 4 + 2 * 2


def test_importance_ranks_as_the_norm_of_the_channel_s_scores(
    context_layers: Callable[..., Any],
) -> None:
    """Eq. 5 of the paper: the Frobenius norm of q_i k_iᵀ, for one query head."""
    layer = context_layers(200)[0]
    one = replace(
        layer.witnessed, queries=layer.witnessed.queries[:, ::2].contiguous(), key_shape=(2, 16)
    )
    layer = replace(layer, witnessed=one)
    channels = ThinK(fraction=0.5, window=32).channels(layer, kept_of(layer))
    for head, count in ((0, 200), (1, 100)):
        query, key = one.queries[0, head, -32:], layer.key[0, head, :count]
        norms = torch.stack([torch.outer(query[:, i], key[:, i]).norm() for i in range(16)])
        assert torch.equal(channels[0, head], norms >= norms.sort(descending=True).values[7])


@pytest.mark.parametrize("fraction", [0.7, 0.5, 0.05])
def test_the_number_of_channels_is_that_of_kvpress(
    fraction: float, context_layers: Callable[..., Any]
) -> None:
    layer = context_layers(3)[0]
    marks = torch.ones(layer.key.shape[:3], dtype=torch.bool)
    kept = KeptKeys.of(marks, layer.key, layer.value)
    channels: Tensor = ThinK(fraction=fraction).channels(layer, kept)
    assert (channels.sum(-1) == 16 - int(16 * (1 - fraction))).all()
