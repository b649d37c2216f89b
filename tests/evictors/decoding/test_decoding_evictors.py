"""What evictors that work while decoding rank by at the context's end, and what they refuse."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import DecodingEvictor
from sah.evictors.block_keydiff import BlockKeyDiff
from sah.evictors.decoding.h2o_decoding import H2ODecoding
from sah.evictors.decoding.r_kv import RKV, mean_similarity
from sah.evictors.decoding.rescoring import Decoding
from sah.evictors.decoding.tova_decoding import TOVADecoding
from sah.evictors.expected_attention import ExpectedAttention
from sah.evictors.h2o import H2O
from sah.evictors.knorm import KNorm
from sah.evictors.leverage import Leverage
from sah.evictors.pyramidkv import PyramidKV
from sah.evictors.snapkv import SnapKV
from sah.evictors.wrappers.adakv import AdaKV

Layers = Callable[..., list[ContextLayer]]


def test_evictors_of_the_context_alone_are_told_apart() -> None:
    for evictor in (
        TOVADecoding(tokens=5),
        H2ODecoding(tokens=5),
        RKV(tokens=5),
        Decoding(of=SnapKV(tokens=5)),
    ):
        assert isinstance(evictor, DecodingEvictor)
    for evictor in (SnapKV(tokens=5), AdaKV(of=SnapKV(tokens=5))):
        assert not isinstance(evictor, DecodingEvictor)


def test_h2o_keeps_the_largest_sums_and_the_last_keys(context_layers: Layers) -> None:
    layer = context_layers(200)[1]
    alive = H2ODecoding(tokens=40, recent=0.25).at_context(layer)
    received = layer.witnessed.received
    assert received is not None
    for head in range(2):
        sums = received[0, 2 * head : 2 * head + 2].mean(0)
        heavy = sums[:190].argsort(descending=True)[:30].tolist()
        assert alive[0, head].nonzero().flatten().tolist() == sorted([*heavy, *range(190, 200)])


def test_similarity_is_the_mean_cosine_to_the_other_keys() -> None:
    key = torch.randn(2, 3, 17, 8, generator=torch.Generator().manual_seed(0))
    cosine = cosine_similarity(key[:, :, :, None], key[:, :, None], dim=-1) * (1 - torch.eye(17))
    assert_close(mean_similarity(key), cosine.mean(-1))


def test_r_kv_drops_a_repeated_key_before_another_one(made_layer: Callable[..., Any]) -> None:
    # No attention is measured: a window of one query that attends to all keys alike.
    key = torch.eye(8)[[0, 1, 2, 3, 3, 3, 4, 5]].unsqueeze(0)
    layer = made_layer(key)
    queries = torch.zeros(1, 1, 1, 8)
    layer = dataclasses.replace(
        layer, witnessed=dataclasses.replace(layer.witnessed, queries=queries)
    )
    alive = RKV(tokens=5, window=1, kernel=1).at_context(layer)
    assert alive[0, 0].tolist() == [True, True, True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("evictor", "message"),
    [
        (H2O(tokens=5), "needs all queries of the context"),
        (ExpectedAttention(tokens=5), "needs all queries of the context"),
        (Leverage(tokens=5), "needs all queries of the context"),
        (PyramidKV(tokens=5), "overrides the budget"),
        (BlockKeyDiff(tokens=5), "overrides the budget"),
        (TOVADecoding(tokens=5), "scores keys by itself"),
        (AdaKV(of=KNorm(tokens=5)), "scores keys by itself"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_only_scores_that_are_known_while_decoding_are_computed_again(
    evictor: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(of=evictor)


def test_a_wrapper_of_the_context_refuses_an_evictor_that_decodes() -> None:
    with pytest.raises(ValueError, match=r"AdaKV: `of` is TOVADecoding, which evicts while"):
        AdaKV(of=TOVADecoding(tokens=5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: H2ODecoding(tokens=5, recent=1.5), r"recent must be in \[0, 1\], got 1.5"),
        (lambda: RKV(tokens=5, mix=-1), r"mix must be in \[0, 1\], got -1"),
        (lambda: RKV(tokens=5, every=0), r"RKV: every must be at least 1, got 0"),
        (lambda: Decoding(of=KNorm(tokens=5), every=0), r"Decoding: every must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
