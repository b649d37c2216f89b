"""Evicting and rewriting keys of a prefilled context: a copy of its cache for one arm."""

import time
from dataclasses import replace

import torch
from transformers import PreTrainedConfig

from sah.attention import SparseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import DecodingEvictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.layers import full_attention_layers
from sah.errors import ConfigurationError
from sah.models.cache import BufferedLayer, CompactedLayer
from sah.models.language_model import PrefilledContext
from sah.seeding import derive


@torch.no_grad()
def evicted(
    context: PrefilledContext,
    attention: SparseAttention,
    config: PreTrainedConfig,
    *,
    seed: int,
) -> PrefilledContext:
    """Return the context with a cache of what the evictor keeps, as the rewriter stores it.

    The layers that the attention keeps dense, and local layers, stay as they are and are shared
    with the given context; the two must be used in turn. `seconds` is the time of eviction and
    rewriting.

    Args:
        context: prefilled with the attention's witness, its cache at the mark.
        attention: has an evictor, a rewriter or both.
        config: of the model.
        seed: of the experiment.

    Raises:
        ConfigurationError: if the model caches a layer in a way that cannot be compacted.
    """
    started = time.perf_counter()
    evictor, rewriter = attention.evictor, attention.rewriter
    assert evictor is not None or rewriter is not None
    stage, verb = ("rewrite", "rewritten") if evictor is None else ("evict", "evicted")
    if context.length == 0:
        return replace(context, seconds=0.0, kept={})
    layers = context.cache.layers
    room = context.cache.capacity - context.cache.length
    kept, compacted = {}, {}
    for number in sorted(full_attention_layers(config)):
        if attention.maskers_at(number) is None:
            continue
        cached = layers[number] if number < len(layers) else None
        if not isinstance(cached, BufferedLayer) or number not in context.witnessed:
            raise ConfigurationError(
                f"sparse_attention.{stage}: layer {number} of this model is cached as "
                f"{type(cached).__name__}, where keys cannot be {verb}; keep it dense with "
                f"sparse_attention.dense_layers=[{number}], or choose another model"
            )
        read = context.witnessed[number].key_shape
        if (cached.keys.shape[1], cached.keys.shape[3]) != read:
            raise ConfigurationError(
                f"sparse_attention.{stage}: layer {number} of this model attends to {read[0]} "
                f"heads of dimension {read[1]}, but caches {list(cached.keys.shape[1::2])}, from "
                "which they are computed (multi-head latent attention), so the keys of a head "
                f"cannot be {verb}; choose another model"
            )
        layer = ContextLayer(
            key=cached.keys,
            value=cached.values,
            witnessed=context.witnessed[number],
            layer_idx=number,
            layers=config.get_text_config(decoder=True).num_hidden_layers,
            seed=derive(seed, "evict", number),
        )
        if evictor is None:
            alive = torch.ones_like(layer.key[..., 0], dtype=torch.bool)
        else:
            alive = evictor.at_context(layer)
        left = KeptKeys.of(alive, layer.key, layer.value)
        if isinstance(evictor, DecodingEvictor):
            left = left.remembering(evictor.begin(layer, left))
        rewritten = None if rewriter is None else rewriter.at_context(layer, left)
        kept[number], compacted[number] = left, CompactedLayer(left, room, rewritten)
    return replace(
        context,
        cache=context.cache.with_layers(compacted),
        seconds=time.perf_counter() - started,
        kept=kept,
    )
