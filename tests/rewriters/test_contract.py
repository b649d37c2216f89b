"""The contract of every rewriter in conf/rewriter; a new yaml is tested as soon as it exists."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from presets import REWRITING

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten

CONF = Path(__file__).resolve().parents[2] / "conf"
REWRITERS = sorted(path.stem for path in (CONF / "rewriter").glob("*.yaml"))

Layers = Callable[..., list[ContextLayer]]
Make = Callable[..., Any]


@pytest.fixture
def rewriter_of(composed: Make) -> Make:
    def make(name: str) -> Any:
        place = f"+rewriter@sparse_attention.rewrite.x={name}"
        return instantiate(composed("sparse_attention=custom", place).rewrite.x, _convert_="all")

    return make


def kept_of(layer: ContextLayer) -> KeptKeys:
    """Keep every second key of the first head and a few more of the others."""
    alive = torch.ones(layer.key.shape[:3], dtype=torch.bool)
    alive[:, 0, 1::2] = False
    return KeptKeys.of(alive, layer.key, layer.value)


def test_the_yamls_are_found() -> None:
    assert {"kivi", "quantised", "think"} <= set(REWRITERS)


@pytest.mark.parametrize("length", [200, 3, 1])
@pytest.mark.parametrize("name", REWRITERS)
def test_returns_finite_rows_of_the_kept_keys_in_their_type(
    name: str, length: int, rewriter_of: Make, context_layers: Layers
) -> None:
    for layer in context_layers(length):
        for dtype in (torch.float32, torch.bfloat16):
            typed = dataclasses.replace(layer, key=layer.key.to(dtype), value=layer.value.to(dtype))
            kept = kept_of(typed)
            found: Rewritten = rewriter_of(name).at_context(typed, kept)
            for rows, exact in ((found.key, typed.key), (found.value, typed.value)):
                assert rows.shape == kept.rows_of(exact).shape
                assert rows.dtype == dtype
                assert rows.isfinite().all()


@pytest.mark.parametrize("name", REWRITERS)
def test_packed_rows_are_smaller_and_not_equal(
    name: str, rewriter_of: Make, context_layers: Layers
) -> None:
    layer = context_layers(400)[0]
    kept = kept_of(layer)
    found = rewriter_of(name).at_context(layer, kept)
    key, value = kept.rows_of(layer.key), kept.rows_of(layer.value)
    assert 0 < found.packed_bytes < 0.8 * (3 / 4) * (key.nbytes + value.nbytes)
    assert not torch.equal(found.key, key)


@pytest.mark.parametrize("name", REWRITERS)
def test_is_a_function_of_the_layer_alone(
    name: str, rewriter_of: Make, context_layers: Layers
) -> None:
    layer = context_layers(200)[1]
    before = layer.key.clone(), layer.value.clone()
    state = torch.get_rng_state()
    first = rewriter_of(name).at_context(layer, kept_of(layer))
    second = rewriter_of(name).at_context(layer, kept_of(layer))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.key, second.key)
    assert torch.equal(first.value, second.value)
    assert torch.equal(layer.key, before[0])
    assert torch.equal(layer.value, before[1])


@pytest.mark.parametrize("name", REWRITERS)
def test_its_witness_asks_for_all_that_it_needs(
    name: str, rewriter_of: Make, context_layers: Layers
) -> None:
    rewriter = rewriter_of(name)
    asked, everything = context_layers(200, rewriter.witness)[0], context_layers(200)[0]
    found = [rewriter.at_context(layer, kept_of(layer)) for layer in (asked, everything)]
    assert torch.equal(found[0].key, found[1].key)
    assert torch.equal(found[0].value, found[1].value)


@pytest.mark.parametrize("name", REWRITERS)
def test_a_rewriter_is_frozen_and_equal_configurations_are_equal(
    name: str, rewriter_of: Make
) -> None:
    first = rewriter_of(name)
    assert first == rewriter_of(name)
    assert hash(first) == hash(rewriter_of(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.bits = 1


@pytest.mark.parametrize("name", REWRITING)
def test_a_preset_rewrites_and_is_named_after_its_file(name: str, composed: Make) -> None:
    attention = instantiate(composed(f"sparse_attention={name}"), _convert_="all")
    assert attention.name == name
    assert attention.rewriter is not None
    assert not attention.maskers
    assert not attention.evict
