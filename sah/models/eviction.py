"""Evicting and rewriting keys of a prefilled context: a copy of its cache for one arm.

Before, some evictors let the model repeat the context.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedConfig

from sah.attention import SparseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import CrossLayerEvictor, DecodingEvictor, Evictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.reconstruction import (
    Reconstructed,
    Reconstruction,
    attending_to_chunk,
)
from sah.attention.layers import full_attention_layers
from sah.errors import ConfigurationError
from sah.models.cache import BufferedLayer, CompactedLayer
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt
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
        context: prefilled with the attention's witness, its cache at the mark, and reconstructed
            as the witness asks.
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
    found: list[ContextLayer] = []
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
        found.append(
            ContextLayer(
                key=cached.keys,
                value=cached.values,
                witnessed=context.witnessed[number],
                layer_idx=number,
                layers=config.get_text_config(decoder=True).num_hidden_layers,
                seed=derive(seed, "evict", number),
                reconstructions=context.reconstructions,
            )
        )
    kept, compacted = {}, {}
    for layer, alive in zip(found, _alive(evictor, found), strict=True):
        number, left = layer.layer_idx, KeptKeys.of(alive, layer.key, layer.value)
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


@torch.inference_mode()
def reconstruct(
    model: LanguageModel,
    context: PrefilledContext,
    prompt: EncodedPrompt,
    asked: Reconstruction,
    *,
    between_chunks: Callable[[], None] = lambda: None,
) -> None:
    """Let the model repeat a context, and note what it attends to (KVzip).

    The model's own attention reads each chunk after the whole context; the cache is rewound.

    Args:
        model: the one that prefilled the context.
        context: gets the result in its `reconstructions`.
        prompt: its context is this one.
        asked: how to repeat it.
        between_chunks: called before every forward pass; may raise to stop.

    Raises:
        ConfigurationError: if the model cannot read that much after the context.
    """
    started = time.perf_counter()
    heading, chunks = model.prompts.repetition(prompt, asked.chunk)
    longest = context.length + max((len(chunk.ids) for chunk in chunks), default=0)
    _check_repetition(model, context, asked, longest)
    leading = min(max(asked.sinks, heading), context.length)
    strongest: dict[int, Tensor] = {}
    try:
        for chunk in chunks:
            between_chunks()
            with attending_to_chunk(
                model.model,
                strongest,
                begin=chunk.begin,
                end=chunk.end,
                sinks=min(leading, chunk.begin),
                length=context.length,
            ):
                model.forward(chunk.ids, context.cache, logits=1)
            context.cache.rewind()
    finally:
        context.cache.rewind()
    model.synchronize()
    seconds = time.perf_counter() - started
    found = Reconstructed(strongest=strongest, leading=leading, seconds=seconds)
    context.reconstructions[asked] = found


def _check_repetition(
    model: LanguageModel, context: PrefilledContext, asked: Reconstruction, longest: int
) -> None:
    limit, capacity = model.prompts.max_tokens, context.cache.capacity
    repeats = (
        f"sparse_attention.evict: after the {context.length} tokens of a context, KVzip reads "
        f"{longest - context.length} that repeat chunk={asked.chunk} of them"
    )
    if limit is not None and longest > limit:
        raise ConfigurationError(
            f"{repeats}, which is more than the model's limit of {limit}; lower chunk, or "
            "benchmark.context_tokens"
        )
    if model.rope.depends_on_length and longest > capacity:
        raise ConfigurationError(
            f"{repeats}, but this model rotates keys by the length of the sequence (LongRoPE, "
            f"dynamic NTK), which here is at most {capacity}; lower chunk by "
            f"{longest - capacity}, or choose another evictor"
        )


def _alive(
    evictor: Evictor | None, layers: Sequence[ContextLayer]
) -> Iterable[Bool[Tensor, "B G K"]]:
    """Return which keys stay in each layer; of most evictors one layer after the other."""
    if evictor is None:
        return (torch.ones_like(layer.key[..., 0], dtype=torch.bool) for layer in layers)
    if isinstance(evictor, CrossLayerEvictor):
        return evictor.at_contexts(layers)
    return map(evictor.at_context, layers)
