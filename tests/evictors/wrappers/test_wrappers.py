"""Wrappers against their definitions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.errors import ConfigurationError
from sah.evictors.knorm import KNorm
from sah.evictors.snapkv import SnapKV
from sah.evictors.streaming.simlayerkv import SimLayerKV
from sah.evictors.wrappers.adakv import AdaKV
from sah.evictors.wrappers.chunkkv import ChunkKV
from sah.evictors.wrappers.criticalkv import CriticalKV

Layers = Callable[..., list[ContextLayer]]
Make = Callable[..., Any]

WRAPPERS = (AdaKV, ChunkKV, CriticalKV)


def of_norms(made_layer: Make, *heads: list[float]) -> ContextLayer:
    """A layer of keys of these norms; KNorm keeps the smallest."""
    layer: ContextLayer = made_layer(torch.tensor(heads).unsqueeze(-1))
    return layer


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_needs_what_its_evictor_needs(wrapper: Any) -> None:
    assert wrapper(of=SnapKV(tokens=40, window=24)).witness == Witness(last_queries=24)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_evictor_without_scores_cannot_be_wrapped(wrapper: Any) -> None:
    with pytest.raises(ValueError, match="`of` must be an evictor that scores keys, and SimLayer"):
        wrapper(of=SimLayerKV(threshold=0.5))


def test_adakv_gives_the_budget_to_the_heads_with_the_best_keys(made_layer: Make) -> None:
    layer = of_norms(made_layer, [1.0, 2, 3, 4, 5, 6], [7.0, 8, 9, 10, 11, 12])
    kept = AdaKV(of=KNorm(tokens=3), safe=0.0).at_context(layer)[0]
    # One key of each head is safe in any case.
    assert kept.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [1, 0]]
    kept = AdaKV(of=KNorm(tokens=3), safe=0.7).at_context(layer)[0]
    assert kept.sum(-1).tolist() == [4, 2]
    assert AdaKV(of=KNorm(tokens=3), safe=1.0).at_context(layer)[0].sum(-1).tolist() == [3, 3]


def test_chunkkv_keeps_whole_chunks_that_fit_into_the_budget(made_layer: Make) -> None:
    layer = of_norms(made_layer, [12.0, 1, 2, 2, 5, 5, 1], [12.0, 1, 3, 3, 5, 5, 1])
    for tokens, kept in ((2, [6]), (3, [2, 3, 6]), (4, [2, 3, 6]), (5, [2, 3, 4, 5, 6])):
        alive = ChunkKV(of=KNorm(tokens=tokens), chunk=2).at_context(layer)[0]
        assert alive[0].nonzero().flatten().tolist() == kept
        assert torch.equal(alive[0], alive[1])


def test_chunkkv_keeps_one_chunk_of_a_budget_that_is_smaller(made_layer: Make) -> None:
    layer = of_norms(made_layer, [9.0, 1, 2, 2])
    alive = ChunkKV(of=KNorm(fraction=0.25), chunk=2).at_context(layer)
    assert alive[0, 0].tolist() == [False, False, True, True]


def test_criticalkv_weighs_the_second_half_of_the_budget_by_projected_values(
    made_layer: Make,
) -> None:
    # One key-value head with two query heads; W_o takes value v to [2v, 0] and [0, -4v].
    module = nn.Module()
    module.o_proj = nn.Linear(2, 2, bias=False)
    module.o_proj.weight = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, -4.0]]))
    value = torch.tensor([[[1.0], [5.0], [1.0], [-7.0]]])
    layer = made_layer([[[1.0], [2.0], [3.0], [9.0]]], value)
    witnessed = replace(layer.witnessed, module=module, queries=torch.zeros(1, 2, 0, 1))
    layer = replace(layer, witnessed=witnessed)
    scores = CriticalKV(of=KNorm(tokens=2), epsilon=10.0).scores(layer)[0, 0]
    # (10 - ‖k‖)·3·|v|, but the best key of all comes first.
    assert scores.tolist() == [torch.inf, 120.0, 21.0, 21.0]
    plain = CriticalKV(of=KNorm(tokens=2), epsilon=10.0, first=0.0).scores(layer)[0, 0]
    assert plain.tolist() == [27.0, 120.0, 21.0, 21.0]


def test_criticalkv_refuses_a_layer_whose_output_projection_it_does_not_know(
    made_layer: Make,
) -> None:
    layer = made_layer(torch.ones(1, 4, 2), layer_idx=3)
    with pytest.raises(ConfigurationError, match="output projection of layer 3, but Module has no"):
        CriticalKV(of=KNorm(tokens=2)).at_context(layer)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AdaKV(of=KNorm(tokens=1), safe=1.5), r"safe must be in \[0, 1\], got 1.5"),
        (lambda: ChunkKV(of=KNorm(tokens=9), chunk=0), "chunk must be at least 1, got 0"),
        (lambda: ChunkKV(of=KNorm(tokens=9)), "20 keys is more than the budget of.tokens=9"),
        (lambda: CriticalKV(of=KNorm(tokens=1), first=-1.0), r"first must be in \[0, 1\], got -1"),
    ],
)
def test_an_invalid_wrapper_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("name", ["adakv", "chunkkv", "criticalkv"])
def test_the_inner_evictor_and_its_budget_are_said_on_the_command_line(
    name: str, composed: Make
) -> None:
    config = composed(
        f"sparse_attention={name}",
        f"evictor@sparse_attention.evict.{name}.of=knorm",
        f"sparse_attention.evict.{name}.of.fraction=0.5",
    )
    assert config.evict[name].of == {"_target_": "sah.evictors.knorm.KNorm", "tokens": None} | {
        "fraction": 0.5
    }
