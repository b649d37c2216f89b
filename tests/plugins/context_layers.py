"""Layers of a context that the tiny model has read, as evictors and rewriters see them."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

import hydra_plugins.sah.config  # noqa: F401
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.reconstruction import Reconstruction
from sah.attention.eviction.rotary import FutureQueries
from sah.attention.eviction.witness import Witness
from sah.models.eviction import reconstruct
from sah.models.language_model import LanguageModel
from sah.models.prompts import EncodedPrompt
from sah.seeding import derive

EVERYTHING = Witness(
    last_queries=64,
    received=True,
    rotary=True,
    calls=True,
    future=frozenset({FutureQueries(skip=4, positions=512)}),
    reconstructions=frozenset({Reconstruction(chunk=2048, sinks=4)}),
)


def _layers(model: LanguageModel, tokens: int, witness: Witness) -> list[ContextLayer]:
    # All different: equal tokens have keys of equal norms in the first layer.
    ids = [1 + 7 * n % 389 for n in range(tokens)]
    context = model.prefill(ids, reserve_tokens=0, witness=witness)
    for asked in witness.reconstructions:
        reconstruct(model, context, EncodedPrompt(context_ids=ids, question_ids=[]), asked)
    return [
        ContextLayer(
            key=layer.keys[:, :, :tokens],
            value=layer.values[:, :, :tokens],
            witnessed=context.witnessed[number],
            layer_idx=number,
            layers=len(context.cache.layers),
            seed=derive(0, "evict", number) % 2**31,
            reconstructions=context.reconstructions,
        )
        for number, layer in enumerate(context.cache.layers)
        if number in context.witnessed
    ]


@pytest.fixture(scope="session")
def context_layers(tiny: LanguageModel) -> Callable[..., list[ContextLayer]]:
    """The layers of a context of the tiny model; of everything that can be witnessed, by default.

    4 query heads on 2 key-value heads of dimension 16, in 2 layers.
    """

    @cache
    def make(tokens: int, witness: Witness = EVERYTHING) -> list[ContextLayer]:
        return _layers(tiny, tokens, witness)

    return make


@pytest.fixture(scope="session")
def layers_of() -> Callable[..., list[ContextLayer]]:
    """The layers of a context of any model."""
    return partial(_layers, witness=EVERYTHING)


@pytest.fixture(scope="session")
def made_layer() -> Callable[..., ContextLayer]:
    """A layer of given keys and values, [G, K, D], without queries."""

    def make(key: Any, value: Any = None, **fields: Any) -> ContextLayer:
        from sah.attention.eviction.witness import Witnessed

        key = torch.as_tensor(key, dtype=torch.float32)[None]
        value = key if value is None else torch.as_tensor(value, dtype=torch.float32)[None]
        nothing = Witnessed(
            module=torch.nn.Module(),
            key_shape=(key.shape[1], key.shape[3]),
            scaling=1.0,
            softcap=None,
            sinks=None,
            queries=torch.zeros(1, key.shape[1], 0, key.shape[3]),
        )
        layer: dict[str, Any] = {"witnessed": nothing, "layer_idx": 0, "layers": 1, "seed": 0}
        return ContextLayer(key=key, value=value, **{**layer, **fields})

    return make
