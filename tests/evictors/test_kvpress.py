"""The keys and channels that stay are those that kvpress keeps, by its own classes.

The docstring of an evictor says where the two differ; the lengths and budgets here are such that
they do not.
"""

import functools
import importlib
import importlib.util
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.kept import KeptKeys
from sah.evictors.block_keydiff import BlockKeyDiff
from sah.evictors.expected_attention import ExpectedAttention
from sah.evictors.h2o import H2O
from sah.evictors.keydiff import KeyDiff
from sah.evictors.knorm import KNorm
from sah.evictors.lagkv import LagKV
from sah.evictors.leverage import Leverage
from sah.evictors.presses.press_class import kvpress_importable
from sah.evictors.pyramidkv import PyramidKV
from sah.evictors.sink_and_recent import SinkAndRecent
from sah.evictors.snapkv import SnapKV
from sah.evictors.streaming.simlayerkv import SimLayerKV
from sah.evictors.tova import TOVA
from sah.evictors.wrappers.adakv import AdaKV
from sah.evictors.wrappers.chunkkv import ChunkKV
from sah.evictors.wrappers.criticalkv import CriticalKV
from sah.models.smollm2 import SmolLM2
from sah.models.tiny import TinyModel
from sah.rewriters.think import ThinK

TOKENS = 384
# The share that stays. LagKV has ties; with this one they are all kept or all evicted.
SHARE = 104.2 / TOKENS


@pytest.fixture(scope="module")
def press() -> Iterator[Callable[..., Any]]:
    """Make a press of kvpress by its module and class."""
    if importlib.util.find_spec("kvpress") is None:
        pytest.skip("needs pip install --no-deps kvpress")

    def make(name: str, *arguments: Any, **keywords: Any) -> Any:
        file, _, kind = name.partition(".")
        module = importlib.import_module(f"kvpress.presses.{file}_press")
        return getattr(module, f"{kind}Press")(*arguments, **keywords)

    with kvpress_importable():
        yield make


@dataclass(frozen=True, kw_only=True)
class Read:
    """A layer of a context, and what a hook of kvpress gets of it."""

    layer: ContextLayer
    hidden: Tensor
    attentions: Tensor
    positions: tuple[Tensor, Tensor]


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def reads(request: pytest.FixtureRequest, layers_of: Callable[..., Any]) -> list[Read]:
    loaded = (TinyModel(layers=3) if request.param == "tiny" else SmolLM2()).load()
    model = loaded.model
    given: list[dict[str, Any]] = []
    modules = [layer.self_attn for layer in model.model.layers]
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, keywords: given.append(keywords), with_kwargs=True
        )
        for module in modules
    ]
    witness = functools.reduce(operator.or_, [evictor.witness for evictor, _ in CASES.values()])
    layers = layers_of(loaded, TOKENS, witness=witness)
    for hook in hooks:
        hook.remove()
    ids = torch.tensor([[1 + 7 * n % 389 for n in range(TOKENS)]])
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = model(ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    for module in modules:
        module.rotary_emb = model.model.rotary_emb  # as kvpress does
    return [
        Read(
            layer=layer,
            hidden=keywords["hidden_states"],
            attentions=attention,
            positions=keywords["position_embeddings"],
        )
        for layer, keywords, attention in zip(layers, given, attentions, strict=True)
    ]


def kept_by(press: Any, read: Read, *, with_attentions: bool = False) -> Tensor:
    """Return which keys a press keeps, [B, G, K]."""
    layer = read.layer
    module: Any = layer.witnessed.module
    module.masked_key_indices = None
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(layer.seed)
        key, _ = press.compress(
            module,
            read.hidden,
            layer.key,
            layer.value,
            read.attentions if with_attentions else None,
            {"position_embeddings": read.positions},
        )
    # Four channels tell the keys apart.
    kept = (layer.key[..., :4].unsqueeze(3) == key[..., :4].unsqueeze(2)).all(-1).any(-1)
    if module.masked_key_indices is not None:
        kept[module.masked_key_indices] = False
    return kept


SNAP = {"window": 16, "kernel": 7}
SNAP_PRESS = {"window_size": 16, "kernel_size": 7}
OF = {"fraction": SHARE}
RATIO = {"compression_ratio": 1 - SHARE}

Case = tuple[Any, Callable[[Callable[..., Any]], Any]]

CASES: dict[str, Case] = {
    "knorm": (KNorm(**OF), lambda press: press("knorm.Knorm", **RATIO)),
    "keydiff": (KeyDiff(**OF), lambda press: press("keydiff.KeyDiff", **RATIO)),
    "streaming_llm": (
        SinkAndRecent(**OF),
        lambda press: press("streaming_llm.StreamingLLM", **RATIO),
    ),
    "snapkv": (SnapKV(**OF, **SNAP), lambda press: press("snapkv.SnapKV", **RATIO, **SNAP_PRESS)),
    "tova": (TOVA(**OF), lambda press: press("tova.TOVA", **RATIO)),
    "pyramidkv": (
        PyramidKV(**OF, window=8, beta=7),
        lambda press: press("pyramidkv.PyramidKV", **RATIO, window_size=8, beta=7),
    ),
    "lagkv": (LagKV(**OF, partition=32), lambda press: press("lagkv.LagKV", **RATIO, lag_size=32)),
    "leverage": (
        Leverage(**OF, sketch=12),
        lambda press: press("leverage.LeverageScore", **RATIO, sketch_dimension=12),
    ),
    "expected_attention": (
        ExpectedAttention(**OF),
        lambda press: press("expected_attention.ExpectedAttention", **RATIO),
    ),
    "expected_attention_without_values": (
        ExpectedAttention(**OF, weigh_by_value=False, sinks=2, future=100),
        lambda press: press(
            "expected_attention.ExpectedAttention",
            **RATIO,
            use_vnorm=False,
            n_sink=2,
            n_future_positions=100,
        ),
    ),
    "h2o": (H2O(**OF), lambda press: press("observed_attention.ObservedAttention", **RATIO)),
    "criticalkv": (
        CriticalKV(of=SnapKV(**OF, **SNAP)),
        lambda press: press("criticalkv.CriticalKV", press("snapkv.SnapKV", **RATIO, **SNAP_PRESS)),
    ),
    "adakv": (
        AdaKV(of=SnapKV(**OF, **SNAP)),
        lambda press: press("adakv.AdaKV", press("snapkv.SnapKV", **RATIO, **SNAP_PRESS)),
    ),
    "adakv_of_expected_attention": (
        AdaKV(of=ExpectedAttention(**OF), safe=0.5),
        lambda press: press(
            "adakv.AdaKV",
            press("expected_attention.ExpectedAttention", **RATIO),
            alpha_safeguard=0.5,
        ),
    ),
    "chunkkv": (
        ChunkKV(of=SnapKV(**OF, **SNAP), chunk=24),
        lambda press: press(
            "chunkkv.ChunkKV", press("snapkv.SnapKV", **RATIO, **SNAP_PRESS), chunk_length=24
        ),
    ),
    "chunkkv_of_knorm": (
        ChunkKV(of=KNorm(**OF), chunk=16),
        lambda press: press("chunkkv.ChunkKV", press("knorm.Knorm", **RATIO), chunk_length=16),
    ),
    "block_keydiff": (
        BlockKeyDiff(**OF, block=48),
        lambda press: press("block.Block", press("keydiff.KeyDiff", **RATIO), block_size=48),
    ),
    # kvpress keeps one recent key fewer than it is told.
    "simlayerkv_lazy": (
        SimLayerKV(threshold=0.01, recent=64),
        lambda press: press("simlayerkv.SimLayerKV", lazy_threshold=0.01, n_recent=65),
    ),
    "simlayerkv_busy": (
        SimLayerKV(threshold=0.99999, recent=8),
        lambda press: press("simlayerkv.SimLayerKV", lazy_threshold=0.99999, n_recent=9),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_keeps_the_keys_that_kvpress_keeps(
    name: str, reads: list[Read], press: Callable[..., Any]
) -> None:
    evictor, make = CASES[name]
    theirs = make(press)
    for read in reads:
        kept = kept_by(theirs, read, with_attentions=name == "h2o")
        assert torch.equal(evictor.at_context(read.layer), kept), read.layer.layer_idx


def test_heads_of_adakv_keep_as_many_keys_as_those_of_kvpress(
    reads: list[Read], press: Callable[..., Any]
) -> None:
    evictor, make = CASES["adakv"]
    counts = {tuple(evictor.at_context(read.layer).sum(-1)[0].tolist()) for read in reads}
    assert any(len(set(heads)) > 1 for heads in counts)
    assert counts == {tuple(kept_by(make(press), read).sum(-1)[0].tolist()) for read in reads}


def test_prunes_the_channels_that_kvpress_prunes(
    reads: list[Read], press: Callable[..., Any]
) -> None:
    theirs = press("think.ThinK", key_channel_compression_ratio=0.3, window_size=16)
    ours = ThinK(fraction=0.7, window=16)
    for read in reads:
        layer = read.layer
        marks = torch.ones(layer.key.shape[:3], dtype=torch.bool)
        found = ours.at_context(layer, KeptKeys.of(marks, layer.key, layer.value))
        with torch.inference_mode():
            key, value = theirs.compress(
                layer.witnessed.module,
                read.hidden,
                layer.key.clone(),  # pruned in place
                layer.value,
                None,
                {"hidden_states": read.hidden, "position_embeddings": read.positions},
            )
        assert torch.equal(found.key, key)
        assert torch.equal(found.value, value)
