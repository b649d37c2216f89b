"""Evicting keys of a prefilled context: a compacted copy of its cache for one arm."""

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
from sah.models.cache import BufferedLayer
from sah.models.language_model import PrefilledContext
from sah.seeding import derive


@torch.inference_mode()
def evicted(
    context: PrefilledContext,
    attention: SparseAttention,
    config: PreTrainedConfig,
    *,
    seed: int,
) -> PrefilledContext:
    """Return the context with a cache of what the attention's evictor keeps.

    The layers that the attention keeps dense, and local layers, stay as they are and are shared
    with the given context; the two must be used in turn. `seconds` is the time of the eviction.

    Args:
        context: prefilled with the evictor's witness, its cache at the mark.
        attention: has an evictor.
        config: of the model.
        seed: of the experiment.

    Raises:
        ConfigurationError: if the model caches a layer in a way that cannot be compacted.
    """
    started = time.perf_counter()
    evictor = attention.evictor
    assert evictor is not None
    if context.length == 0:
        return replace(context, seconds=0.0, kept={})
    layers = context.cache.layers
    kept = {}
    for number in sorted(full_attention_layers(config)):
        if attention.maskers_at(number) is None:
            continue
        cached = layers[number] if number < len(layers) else None
        if not isinstance(cached, BufferedLayer) or number not in context.witnessed:
            raise ConfigurationError(
                f"sparse_attention.evict: layer {number} of this model is cached as "
                f"{type(cached).__name__}, from which keys cannot be evicted; keep it dense with "
                f"sparse_attention.dense_layers=[{number}], or choose another model"
            )
        read = context.witnessed[number].key_shape
        if (cached.keys.shape[1], cached.keys.shape[3]) != read:
            raise ConfigurationError(
                f"sparse_attention.evict: layer {number} of this model attends to {read[0]} heads "
                f"of dimension {read[1]}, but caches {list(cached.keys.shape[1::2])}, from which "
                "they are computed (multi-head latent attention), so the keys of a head cannot be "
                "evicted; choose another model"
            )
        layer = ContextLayer(
            key=cached.keys,
            value=cached.values,
            witnessed=context.witnessed[number],
            layer_idx=number,
            layers=config.get_text_config(decoder=True).num_hidden_layers,
            seed=derive(seed, "evict", number),
        )
        left = KeptKeys.of(evictor.at_context(layer), layer.key, layer.value)
        if isinstance(evictor, DecodingEvictor):
            left = left.remembering(evictor.begin(layer, left))
        kept[number] = left
    return replace(
        context,
        cache=context.cache.compacted(kept),
        seconds=time.perf_counter() - started,
        kept=kept,
    )
