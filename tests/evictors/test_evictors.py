"""Evictors against their definitions, where kvpress has none or differs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.errors import ConfigurationError
from sah.evictors.block_keydiff import BlockKeyDiff
from sah.evictors.expected_attention import ExpectedAttention
from sah.evictors.h2o import H2O
from sah.evictors.keydiff import KeyDiff
from sah.evictors.lagkv import LagKV
from sah.evictors.leverage import Leverage
from sah.evictors.pyramidkv import PyramidKV
from sah.evictors.snapkv import SnapKV
from sah.evictors.tova import TOVA

Layers = Callable[..., list[ContextLayer]]
Make = Callable[..., Any]


def positions(evictor: Any, layer: ContextLayer, head: int = 0) -> list[int]:
    kept: list[int] = evictor.at_context(layer)[0, head].nonzero().flatten().tolist()
    return kept


@pytest.mark.parametrize(
    ("evictor", "kept"),
    [
        (SnapKV(tokens=3, window=8), [197, 198, 199]),
        (TOVA(tokens=1), [199]),
        (LagKV(tokens=5, partition=32), [0, 1, 2, 3, 199]),
        (LagKV(tokens=5), [0, 1, 2, 3, 199]),
    ],
    ids=["snapkv", "tova", "lagkv", "lagkv of two partitions"],
)
def test_a_budget_smaller_than_the_keys_that_stay_keeps_the_most_recent_of_them(
    evictor: Any, kept: list[int], context_layers: Layers
) -> None:
    assert positions(evictor, context_layers(200)[1]) == kept


def test_tova_keeps_the_same_keys_in_every_head(context_layers: Layers) -> None:
    alive = TOVA(tokens=20).at_context(context_layers(200)[1])
    assert torch.equal(alive[:, 0], alive[:, 1])


def test_h2o_scores_a_key_by_the_mean_attention_of_the_queries_that_see_it(
    context_layers: Layers,
) -> None:
    layer = context_layers(50)[1]  # a window of 64 is all of it
    weights = layer.window_attention(50)  # B H Q K
    for key in (0, 17, 49):
        expected = weights[0, :2, key:, key].mean()  # the query heads of the first key-value head
        assert H2O(tokens=1).scores(layer)[0, 0, key].item() == pytest.approx(expected.item())


def test_keydiff_evicts_keys_near_the_mean_direction(made_layer: Make) -> None:
    layer = made_layer([[[5.0, 0.1], [1.0, 0.0], [0.0, 1.0], [9.0, -0.1]]])
    assert positions(KeyDiff(tokens=1), layer) == [2]


@pytest.mark.parametrize("block", [1, 7, 300])
def test_block_keydiff_chooses_among_a_block_and_what_earlier_ones_left(
    block: int, context_layers: Layers
) -> None:
    layer = context_layers(200)[1]
    keys = torch.nn.functional.normalize(layer.key[0, 0], dim=-1)
    kept = list(range(30))
    for start in range(30, 200, block):
        found = kept + list(range(start, min(200, start + block)))
        anchor = keys[found].mean(0)
        kept = sorted(sorted(found, key=lambda n: float(keys[n] @ anchor))[:30])
    assert positions(BlockKeyDiff(tokens=30, block=block), layer) == kept


@pytest.mark.parametrize(
    ("layers", "length", "budgets"),
    [
        # The mean is 250, the last layer has 250 / 10.
        (3, 1000, [475, 250, 25]),
        # Twice the mean is more than the context without the window.
        (3, 260, [240, 65, -110]),
    ],
)
def test_pyramidkv_spreads_the_budget_linearly_over_the_layers(
    layers: int, length: int, budgets: list[int], made_layer: Make
) -> None:
    evictor = PyramidKV(tokens=250, window=20, beta=10)
    found = [
        evictor.budget(made_layer(torch.zeros(1, length, 2), layer_idx=number, layers=layers))
        for number in range(layers)
    ]
    assert found == (budgets if min(budgets) > 0 else [250] * layers)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("length", [100, 1000, 5000])
def test_budgets_of_pyramidkv_fall_and_have_the_asked_mean(
    fraction: float, length: int, made_layer: Make
) -> None:
    evictor = PyramidKV(fraction=fraction)
    found = [
        evictor.budget(made_layer(torch.zeros(1, length, 1), layer_idx=number, layers=12))
        for number in range(12)
    ]
    assert found == sorted(found, reverse=True)
    assert max(found) <= length
    assert sum(found) / 12 == pytest.approx(fraction * length, abs=1)


def test_pyramidkv_leaves_every_layer_its_window_where_the_pyramid_would_be_smaller(
    made_layer: Make,
) -> None:
    layers = [made_layer(torch.zeros(1, 2000, 1), layer_idx=n, layers=2) for n in range(2)]
    assert [PyramidKV(tokens=500).budget(layer) for layer in layers] == [936, 64]


def test_leverage_is_that_of_the_keys_before_the_rotary_embedding(context_layers: Layers) -> None:
    layer = context_layers(200)[0]
    key = layer.unrotated_key()[0, 1].double()
    centred = key - key.mean(0)
    gram = centred.T @ centred
    leverage = (centred @ torch.linalg.inv(gram) * centred).sum(-1)
    # A projection to many more dimensions spans the same space.
    scores = Leverage(tokens=1, sketch=400).scores(layer)[0, 1]
    torch.testing.assert_close(scores.double(), leverage, atol=5e-3, rtol=0.01)


def test_expected_attention_is_the_attention_that_future_queries_pay_on_average(
    context_layers: Layers,
) -> None:
    layer = context_layers(200)[1]
    evictor = ExpectedAttention(tokens=1, weigh_by_value=False)
    moments = layer.future(*evictor.witness.future)
    queries = torch.distributions.MultivariateNormal(
        moments.mean[0, :2].double(),
        moments.covariance[0, :2].double() + 1e-6 * torch.eye(16).double(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = queries.sample(torch.Size([20_000]))  # N H D
    # Small enough that the mean of the exponential converges.
    scaling = layer.witnessed.scaling / 10
    keys = layer.key[0, 0, 4:].double()
    mean = (drawn @ keys.T * scaling).exp().mean(0)  # H K
    expected = (mean / mean.sum(-1, keepdim=True)).mean(0)
    weak = replace(layer, witnessed=replace(layer.witnessed, scaling=scaling))
    scores = evictor.scores(weak)[0, 0, 4:].double()
    torch.testing.assert_close(scores, expected, rtol=0.03, atol=0)


@pytest.mark.parametrize(
    ("evictor", "what"), [(Leverage(tokens=1), "keys"), (ExpectedAttention(tokens=1), "queries")]
)
def test_a_model_that_rotates_in_an_unknown_way_is_refused(
    evictor: Any, what: str, context_layers: Layers
) -> None:
    layer = context_layers(50, Witness())[1]
    said = f"needs the {what} before the rotary embedding, but LlamaAttention .*dense_layers=.1."
    with pytest.raises(ConfigurationError, match=said):
        evictor.at_context(layer)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SnapKV(tokens=1, window=0), "window must be at least 1, got 0"),
        (lambda: SnapKV(tokens=1, kernel=4), "kernel must be odd and at least 1, got 4"),
        (lambda: PyramidKV(tokens=1, beta=0), "PyramidKV: beta must be at least 1, got 0"),
        (lambda: PyramidKV(tokens=1, window=0), "PyramidKV: window must be"),
        (lambda: LagKV(tokens=1, sinks=-1), "LagKV: sinks must be at least 0, got -1"),
        (lambda: LagKV(tokens=1, partition=0), "LagKV: partition must be at least 1, got 0"),
        (lambda: Leverage(tokens=1, sketch=0), "Leverage: sketch must be at least 1, got 0"),
        (lambda: BlockKeyDiff(tokens=1, block=0), "BlockKeyDiff: block must be at least 1, got 0"),
        (lambda: ExpectedAttention(tokens=1, future=0), "future=0 must be at least 0, 0 and 1"),
        (lambda: TOVA(), "TOVA: give exactly one of tokens and fraction"),
        (lambda: H2O(tokens=0), "H2O: tokens must be a whole number of at least 1, got 0"),
        (lambda: KeyDiff(fraction=1.5), r"KeyDiff: fraction must be in \(0, 1\], got 1.5"),
    ],
)
def test_an_invalid_evictor_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
