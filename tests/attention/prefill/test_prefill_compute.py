"""Block-sparse attention against one dense softmax over the keys that each query reads."""

# B batch, H query heads, G key-value heads, K positions of the context, D/V dimensions

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from sah.attention.prefill import compute
from sah.attention.prefill.compute import attend
from sah.attention.prefill.pattern import PrefillLayer, Reads


def made_layer(
    length: int, *, batch: int = 1, groups: int = 2, group_size: int = 2, **options: Any
) -> tuple[PrefillLayer, Tensor]:
    """Return a layer and its values, as a cache with room for more tokens holds them."""
    key, value = (torch.randn(batch, groups, length + 9, 8)[:, :, :length] for _ in range(2))
    query = torch.randn(batch, groups * group_size, length, 8)
    return PrefillLayer(query=query, key=key, scaling=0.4, layer_idx=0, **options), value


def read_by_definition(reads: Reads, heads: int, length: int) -> Tensor:
    """Ask for each query and key whether any part of `reads` has it, [1, H, K, K]."""
    read = torch.zeros(1, heads, length, length, dtype=torch.bool)
    for head in range(heads):
        for query in range(length):
            for key in range(query + 1):
                found = query - key < reads.window or query >= length - reads.last_queries
                if reads.columns is not None:
                    found |= bool(reads.columns[0, head % reads.columns.shape[1], key])
                if reads.blocks is not None:
                    of_head = reads.blocks[0, head % reads.blocks.shape[1]]
                    found |= bool(of_head[query // reads.query_block, key // reads.key_block])
                read[0, head, query, key] = found
    return read


def dense_softmax(
    layer: PrefillLayer, value: Tensor, read: Tensor, sinks: Tensor | None = None
) -> Tensor:
    """Compute the output in float64, with every score in memory."""
    key, value = (p.double().repeat_interleave(layer.group_size, 1) for p in (layer.key, value))
    scores = layer.query.double() @ key.transpose(-1, -2) * layer.scaling
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    weights = scores.masked_fill(~read, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.double().exp().view(1, -1, 1, 1)
    return weights / total @ value


def drawn_reads(draw: random.Random, heads: int, length: int, batch: int) -> Reads:
    query_block, key_block = draw.choice([1, 5, 16, 64, 100, 131]), draw.choice([1, 16, 64, 100])
    sizes = [math.ceil(length / size) for size in (query_block, key_block)]
    blocks = torch.rand(draw.choice([1, batch]), draw.choice([1, heads]), *sizes)
    columns = torch.rand(1, draw.choice([1, heads]), length)
    return Reads(
        window=draw.choice([1, 7, 100, 200, 1000]),
        columns=draw.choice([None, columns < 0.1, columns < 2]),
        blocks=draw.choice([None, blocks < 0.2, blocks < 0.6, blocks < 2]),
        query_block=query_block,
        key_block=key_block,
        last_queries=draw.choice([0, 0, 30, 1000]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_output_and_density_are_those_of_a_dense_softmax_over_what_is_read(seed: int) -> None:
    torch.manual_seed(seed)
    draw = random.Random(seed)
    batch, groups, group_size = draw.choice([1, 1, 2]), draw.choice([1, 2]), draw.choice([1, 3])
    length, heads = draw.choice([1, 5, 64, 130, 300]), groups * group_size
    layer, value = made_layer(
        length,
        batch=batch,
        groups=groups,
        group_size=group_size,
        softcap=draw.choice([None, None, 2.0]),
    )
    reads = drawn_reads(draw, heads, length, batch)
    sinks = draw.choice([None, None, torch.randn(heads)])
    read = reads.mask(length).expand(batch, heads, length, length)
    computed = attend(layer, value, reads, sinks=sinks)
    assert_close(
        computed.output.double(), dense_softmax(layer, value, read, sinks), atol=1e-5, rtol=1e-5
    )
    visible = batch * heads * length * (length + 1) / 2
    assert computed.density == pytest.approx(int(read.sum()) / visible)


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_of_reads_is_the_union_of_its_parts(seed: int) -> None:
    torch.manual_seed(seed)
    reads = drawn_reads(random.Random(seed), 2, 23, 1)
    assert torch.equal(reads.mask(23).expand(1, 2, 23, 23), read_by_definition(reads, 2, 23))


def test_a_window_over_the_whole_context_is_dense_attention() -> None:
    layer, value = made_layer(150)
    computed = attend(layer, value, Reads(window=150))
    expected = scaled_dot_product_attention(
        layer.query, layer.key, value, is_causal=True, scale=0.4, enable_gqa=True
    )
    assert computed.density == 1.0
    assert torch.equal(computed.output, expected)


def test_half_precision_stays_in_its_dtype() -> None:
    layer, value = made_layer(200)
    half = PrefillLayer(
        query=layer.query.bfloat16(), key=layer.key.bfloat16(), scaling=0.4, layer_idx=0
    )
    reads = Reads(window=20, columns=torch.rand(1, 4, 200) < 0.1)
    output = attend(half, value.bfloat16(), reads).output
    assert output.dtype == torch.bfloat16
    assert_close(output.float(), attend(layer, value, reads).output, atol=0.05, rtol=0.05)


def test_heads_that_do_not_fit_in_memory_together_are_computed_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, value = made_layer(200)
    reads = Reads(blocks=torch.rand(1, 4, 4, 4) < 0.5)
    together = attend(layer, value, reads).output
    monkeypatch.setattr(compute, "_TOGETHER", 1)
    assert_close(attend(layer, value, reads).output, together, atol=1e-6, rtol=1e-6)
