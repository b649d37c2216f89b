"""The contract of every pattern in conf/pattern; a new yaml is tested as soon as it exists."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from prefill_layers import prefill_layer
from presets import PREFILLING

from sah.attention.prefill.compute import attend
from sah.patterns.estimates import logits

CONF = Path(__file__).resolve().parents[2] / "conf" / "pattern"
PATTERNS = sorted(path.stem for path in CONF.glob("*.yaml"))

# Small blocks and windows, so that a short context has several of them.
SMALL: dict[str, dict[str, Any]] = {
    "a_shape": {"sinks": 4, "window": 20},
    "tri_shape": {"sinks": 4, "window": 20, "last_queries": 10},
    "vertical_slash": {"sinks": 2, "local": 3, "last_queries": 20, "slash_fraction": 0.01},
    "block_top_k": {"block": 16},
    "flexprefill": {"block": 16, "min_budget": 17, "tau": 0.16},
    "xattention": {"block": 16, "stride": 4, "threshold": 0.5},
    "moba": {"block": 16},
}
EVERYTHING: dict[str, dict[str, Any]] = {
    "a_shape": {"window": 1000},
    "tri_shape": {"window": 1000},
    "vertical_slash": {"vertical_fraction": 1.0},
    "block_top_k": {"fraction": 1.0},
    "flexprefill": {"gamma": 1.0},
    "xattention": {"threshold": 1.0},
    "moba": {"top_k": 1000},
}
LENGTHS = (1, 15, 64, 200)


def made(name: str, **fields: Any) -> Any:
    """The pattern of a yaml with small blocks, and other values for some fields."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    return instantiate(config, **SMALL.get(name, {}), **fields)


def read(pattern: Any, layer: Any) -> torch.Tensor:
    return pattern.reads(layer).mask(layer.length).expand(layer.query.shape[0], 4, -1, -1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", PATTERNS)
def test_every_query_reads_its_own_key_and_blocks_cover_the_context(name: str, length: int) -> None:
    reads = made(name).reads(prefill_layer(length, batch=2))
    pairs = reads.mask(length)
    assert pairs.diagonal(dim1=-2, dim2=-1).all()
    assert reads.window >= 1
    if reads.columns is not None:
        assert reads.columns.shape[-1] == length
    if reads.blocks is not None:
        sizes = reads.query_block, reads.key_block
        assert reads.blocks.shape[2:] == tuple(math.ceil(length / size) for size in sizes)


@pytest.mark.parametrize("name", PATTERNS)
def test_reads_a_part_of_a_long_context(name: str) -> None:
    # The tokens before its own that a query of 600 reads, on average, of the 299.5 there are.
    share = read(made(name), prefill_layer(600)).tril(-1).float().sum(-1).mean() / 299.5
    assert 0.01 < share < 0.9


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", EVERYTHING)
def test_a_full_budget_reads_every_key(name: str, length: int) -> None:
    pattern = dataclasses.replace(made(name), **EVERYTHING[name])
    assert torch.equal(
        read(pattern, prefill_layer(length))[0, 0], torch.ones(length, length).tril().bool()
    )


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("name", PATTERNS)
def test_attention_of_the_keys_read_equals_one_masked_softmax(
    name: str, softcap: float | None
) -> None:
    layer = prefill_layer(200, batch=2, softcap=softcap)
    value = torch.randn(2, 2, 200, 8, generator=torch.Generator().manual_seed(1))
    reads = made(name).reads(layer)
    scores = logits(layer, layer.query, layer.key).masked_fill(~reads.mask(200), -torch.inf)
    expected = scores.softmax(-1) @ value.repeat_interleave(2, 1)
    computed = attend(layer, value, reads)
    assert torch.allclose(computed.output, expected, atol=1e-5)
    visible = 200 * 201 / 2
    pairs = reads.mask(200).expand(2, 4, -1, -1).sum((-1, -2)).float()
    assert computed.density == pytest.approx(pairs.mean().item() / visible)


@pytest.mark.parametrize("name", PATTERNS)
def test_batch_rows_and_heads_are_independent(name: str) -> None:
    layer, pattern = prefill_layer(200, batch=2), made(name)
    whole = read(pattern, layer)
    for row in range(2):
        for group in range(2):
            heads = slice(2 * group, 2 * group + 2)
            part = dataclasses.replace(
                layer,
                query=layer.query[row : row + 1, heads],
                key=layer.key[row : row + 1, group : group + 1],
            )
            alone = pattern.reads(part).mask(200).expand(1, 2, -1, -1)
            assert torch.equal(alone, whole[row : row + 1, heads])


@pytest.mark.parametrize("name", PATTERNS)
def test_depends_on_products_of_queries_and_keys_alone(name: str) -> None:
    """Not on the basis of the head, and not on where the scaling is."""
    layer, pattern = prefill_layer(200), made(name)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    turned = dataclasses.replace(
        layer, query=4 * layer.query @ turn, key=layer.key @ turn, scaling=layer.scaling / 4
    )
    assert torch.equal(read(pattern, turned), read(pattern, layer))


@pytest.mark.parametrize("name", PATTERNS)
def test_is_a_function_of_the_layer_alone(name: str) -> None:
    layer = prefill_layer(200)
    query, key = layer.query.clone(), layer.key.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = read(made(name), layer)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(read(made(name), layer), first)
    assert torch.equal(layer.query, query)
    assert torch.equal(layer.key, key)


@pytest.mark.parametrize("name", PATTERNS)
def test_works_in_half_precision(name: str) -> None:
    layer, pattern = prefill_layer(200), made(name)
    half = dataclasses.replace(layer, query=layer.query.bfloat16(), key=layer.key.bfloat16())
    same = read(pattern, half) == read(pattern, layer)
    assert same.float().mean() > 0.9


@pytest.mark.parametrize("name", PATTERNS)
def test_is_frozen_and_equal_configurations_are_equal(name: str) -> None:
    pattern = made(name)
    assert pattern == made(name)
    assert hash(pattern) == hash(made(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        pattern.block = 1


@pytest.mark.parametrize("name", PREFILLING)
def test_a_preset_reads_the_context_by_the_pattern_and_is_named_after_its_file(
    name: str, composed: Any
) -> None:
    attention = instantiate(composed(f"sparse_attention={name}"), _convert_="all")
    assert attention.name == name
    assert attention.pattern == instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    assert not attention.maskers
    assert not attention.evict


CAUSAL = ("block_top_k", "moba", "xattention")


@pytest.mark.parametrize("name", CAUSAL)
def test_later_tokens_do_not_change_what_earlier_blocks_of_queries_read(name: str) -> None:
    layer, pattern = prefill_layer(200), made(name)
    before = dataclasses.replace(layer, query=layer.query[:, :, :96], key=layer.key[:, :, :96])
    assert torch.equal(read(pattern, before), read(pattern, layer)[:, :, :96, :96])


@pytest.mark.parametrize("name", ["block_top_k", "moba"])
def test_means_do_not_depend_on_the_order_of_keys_in_a_block(name: str) -> None:
    layer, pattern = prefill_layer(192), made(name)
    order = torch.arange(192).view(-1, 16).flip(1).flatten()
    shuffled = dataclasses.replace(layer, key=layer.key[:, :, order])
    assert torch.equal(pattern.reads(shuffled).blocks, pattern.reads(layer).blocks)
