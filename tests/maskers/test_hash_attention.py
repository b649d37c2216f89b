"""HashAttention against its definition in loops over heads and bits."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sah.attention import AttentionMask
from sah.maskers import hash_attention
from sah.maskers.hash_attention import HashAttention, HashNetworks, Signatures

Make = Callable[..., Any]


def networks(bits: int, *, heads: int = 4, dim: int = 16, layers: int = 2) -> dict[str, Tensor]:
    """Return random weights: three linear maps for queries, two for keys."""
    generator = torch.Generator().manual_seed(bits)
    tensors = {}
    for layer in range(layers):
        for kind, widths in (("query", (dim, 11, 9, bits)), ("key", (dim, 10, bits))):
            for n, (inner, outer) in enumerate(itertools.pairwise(widths)):
                name = f"layers.{layer}.{kind}.{n}"
                tensors[f"{name}.weight"] = torch.randn(heads, inner, outer, generator=generator)
                tensors[f"{name}.bias"] = torch.randn(heads, outer, generator=generator)
    return tensors


def signature(tensors: dict[str, Tensor], layer: int, kind: str, head: int, x: Tensor) -> list[int]:
    """Return the signs of one head's network for one vector, in float64."""
    hidden = x.double().tolist()
    number = 0
    while (name := f"layers.{layer}.{kind}.{number}") + ".weight" in tensors:
        if number:
            hidden = [value / (1 + math.exp(-value)) for value in hidden]
        weight = tensors[f"{name}.weight"][head].double()
        bias = tensors[f"{name}.bias"][head].double()
        hidden = (torch.tensor(hidden, dtype=torch.float64) @ weight + bias).tolist()
        number += 1
    return [int(value > 0) for value in hidden]


def unpacked(words: list[int], bits: int) -> list[int]:
    return [(words[bit // 32] % 2**32) >> bit % 32 & 1 for bit in range(bits)]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[dict[str, Tensor]], str]:
    def save(tensors: dict[str, Tensor]) -> str:
        save_file(tensors, tmp_path / "mine.safetensors")
        return str(tmp_path / "mine.safetensors")

    return save


@pytest.mark.parametrize("bits", [5, 32, 40, 70])
def test_signatures_are_the_signs_of_each_head_s_network(bits: int, make_inputs: Make) -> None:
    inputs = make_inputs(keys=12, padding=(0, 0))
    tensors = networks(bits)
    for layer in (0, 1):
        layer_networks = HashNetworks.of_layer(tensors, layer)
        assert layer_networks is not None
        assert layer_networks.bits == bits
        (words,) = Signatures(layer_networks, inputs.key, inputs.value).codes
        assert words.dtype == torch.int32
        assert words.shape == (2, 4, -(-bits // 32), 12)
        for b, h, k in torch.cartesian_prod(*map(torch.arange, (2, 4, 12))).tolist():
            expected = signature(tensors, layer, "key", h, inputs.key[b, h // 2, k])
            assert unpacked(words[b, h, :, k].tolist(), bits) == expected


@pytest.mark.parametrize("bits", [5, 32, 40, 70])
def test_equal_bits_are_counted(bits: int, make_inputs: Make) -> None:
    inputs = make_inputs(keys=10, queries=3)
    tensors = networks(bits)
    layer_networks = HashNetworks.of_layer(tensors, 1)
    assert layer_networks is not None
    counted = Signatures(layer_networks, inputs.key, inputs.value).equal_bits(inputs.query)
    for h in range(4):
        of_keys = [signature(tensors, 1, "key", h, key) for key in inputs.key[0, h // 2]]
        for q in range(3):
            of_query = signature(tensors, 1, "query", h, inputs.query[0, h, q])
            expected = [sum(map(int.__eq__, of_query, of_key)) for of_key in of_keys]
            assert counted[0, h, q].tolist() == expected


def test_adds_the_candidates_that_share_most_bits(
    file: Callable[..., str], make_inputs: Make, some_mask: Make
) -> None:
    tensors = networks(40)
    inputs = replace(make_inputs(keys=40, queries=3), layer_idx=1)
    before = some_mask(inputs)
    added = HashAttention(tokens=7, weights=file(tensors))(inputs, before).selected
    added = added & ~before.selected
    for h, q in torch.cartesian_prod(torch.arange(4), torch.arange(3)).tolist():
        of_query = signature(tensors, 1, "query", h, inputs.query[0, h, q])
        shared = {
            k: sum(
                map(int.__eq__, of_query, signature(tensors, 1, "key", h, inputs.key[0, h // 2, k]))
            )
            for k in before.candidates[0, h, q].nonzero().flatten().tolist()
        }
        chosen = added[0, h, q].nonzero().flatten().tolist()
        # Of keys with equal counts the later ones score higher.
        assert chosen == sorted(sorted(shared, key=lambda k: (shared[k], k))[-7:])


def test_a_key_of_the_opposite_signature_shares_no_bit_and_its_own_shares_all() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 16, 33, generator=generator)
    linear = [(weight, torch.zeros(1, 33))]
    query = torch.randn(1, 1, 1, 16, generator=generator)
    key = torch.cat([query, -query], dim=2)
    counted = Signatures(HashNetworks(query=linear, key=linear), key, key).equal_bits(query)
    assert counted.flatten().tolist() == [33, 0]


def test_signatures_do_not_depend_on_how_keys_are_chunked(
    make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(keys=30)
    layer_networks = HashNetworks.of_layer(networks(40), 0)
    assert layer_networks is not None
    (whole,) = Signatures(layer_networks, inputs.key, inputs.value).codes
    monkeypatch.setattr(hash_attention, "_CHUNK_KEYS", 7)
    index = Signatures(layer_networks, inputs.key, inputs.value)
    assert torch.equal(index.codes[0], whole)
    # 4 heads and two words.
    assert index.nbytes == 30 * 4 * 2 * 4


def test_a_file_of_another_model_is_refused_with_both_shapes(
    file: Callable[..., str], make_inputs: Make
) -> None:
    masker = HashAttention(tokens=4, weights=file(networks(8)))
    for changes, said in (({"dim": 8}, r"\[4, 8\]"), ({"heads": 6}, r"\[6, 16\]")):
        inputs = make_inputs(keys=9, **changes)
        with pytest.raises(ValueError, match=rf"is for \[4, 16\].*the model has {said}"):
            masker(inputs, AttentionMask.empty(inputs))


def test_a_file_that_lacks_the_layer_is_refused(
    file: Callable[..., str], make_inputs: Make
) -> None:
    masker = HashAttention(tokens=4, weights=file(networks(8)))
    inputs = replace(make_inputs(keys=9), layer_idx=2)
    with pytest.raises(ValueError, match="has no layer 2; it was made for a model of fewer"):
        masker(inputs, AttentionMask.empty(inputs))


def test_a_missing_file_says_how_to_make_one() -> None:
    with pytest.raises(ValueError, match="sah calibrate hash_attention model=no-such-model"):
        HashAttention(tokens=4, weights="no-such-model")
    with pytest.raises(ValueError, match=r"there is no file nowhere\.safetensors"):
        HashAttention(tokens=4, weights="nowhere.safetensors")
