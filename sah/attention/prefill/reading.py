"""Sparse prefill in a transformers model: its full-attention layers read what a pattern decides."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D/V dimensions

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from sah.attention.interface import (
    attention_function,
    attention_replaced,
    layer_number,
    mask_function,
)
from sah.attention.keywords import check_keywords
from sah.attention.layers import full_attention_layers, indexed_layers
from sah.attention.methods import DenseAttention, SparseAttention
from sah.attention.native.indexer import switched_on, without_selection
from sah.attention.prefill.compute import attend
from sah.attention.prefill.pattern import Pattern, PrefillLayer, Reads
from sah.errors import ConfigurationError
from sah.seeding import derive


@dataclass(frozen=True)
class OwnPrefill:
    """A context is read by the model's own code, with its own indexer."""


@dataclass(frozen=True, kw_only=True)
class SparsePrefill:
    """How a context is read; arms whose sparse prefills are equal share one prefill."""

    pattern: Pattern
    dense_layers: frozenset[int] = frozenset()
    """Full-attention layers that keep the model's own attention."""
    seed: int = 0
    """Of the experiment."""

    @classmethod
    def of(
        cls, attention: DenseAttention | SparseAttention, config: PreTrainedConfig, *, seed: int
    ) -> "SparsePrefill | OwnPrefill | None":
        """Return how an attention reads contexts in a model; None for the model's own attention."""
        if attention.uses_indexer:
            return OwnPrefill()
        if isinstance(attention, DenseAttention) or attention.pattern is None:
            return None
        full = full_attention_layers(config)
        dense = frozenset(number for number in full if attention.maskers_at(number) is None)
        return cls(pattern=attention.pattern, dense_layers=dense, seed=seed)


class PairsRead:
    """Counts the pairs of query and key that the queries of a context read."""

    def __init__(self) -> None:
        self.by_layer: dict[int, float] = {}
        """Share of the visible pairs in each full-attention layer."""

    def density(self) -> float:
        """Return the mean over heads and full-attention layers; 1 if there is none."""
        shares = self.by_layer.values()
        return sum(shares) / len(shares) if shares else 1.0


@contextmanager
def reading(model: PreTrainedModel, prefill: SparsePrefill | OwnPrefill) -> Iterator[PairsRead]:
    """Let the context that the model reads in the block be read as a pattern, or indexer, decides.

    Dense layers, and local layers (sliding window, chunked), keep the model's own attention.

    Yields:
        What was read; filled while the model reads the context.

    Raises:
        ConfigurationError: if the pattern does not fit the model, or the model's attention is not
            plainly causal.
    """
    if isinstance(prefill, OwnPrefill):
        with switched_on(model), _pairs_counted(model) as read:
            yield read
        return
    name = model.config.get_text_config(decoder=True)._attn_implementation
    full, indexed = full_attention_layers(model.config), indexed_layers(model.config)
    read = PairsRead()
    causal: list[Any] = []  # the mask that was found to be causal; the layers share it

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> Any:
        number = layer_number(module)
        is_full = number in full and kwargs.get("sliding_window") is None
        if not is_full or number in prefill.dense_layers:
            if is_full:
                read.by_layer[number] = 1.0
            function = attention_function(name, module)
            return function(module, query, key, value, attention_mask, **kwargs)
        if not causal or attention_mask is not causal[0]:
            _require_causal(module, query.shape[2], key.shape[2], attention_mask)
            causal[:] = [attention_mask]
        if number in indexed:
            kwargs = without_selection(kwargs)
        scaling, softcap, sinks, _ = (
            kwargs.pop(part, None) for part in ("scaling", "softcap", "s_aux", "sliding_window")
        )
        # An eager model has a float mask, which has been checked.
        is_boolean = attention_mask is not None and attention_mask.dtype == torch.bool
        check_keywords(module, query.shape[2], attention_mask if is_boolean else None, kwargs)
        layer = PrefillLayer(
            query=query,
            key=key,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            layer_idx=number,
            softcap=softcap,
            seed=derive(prefill.seed, "prefill", number),
        )
        reads = prefill.pattern.reads(layer)
        _require_fitting(reads, layer)
        computed = attend(layer, value, reads, sinks=sinks)
        read.by_layer[number] = computed.density
        return computed.output.transpose(1, 2).contiguous(), None

    with attention_replaced(model, attention, mask_function(name)):
        yield read


@contextmanager
def _pairs_counted(model: PreTrainedModel) -> Iterator[PairsRead]:
    """Count what the model's own code reads, by the masks that it hands to its attention."""
    name = model.config.get_text_config(decoder=True)._attn_implementation
    full, read = full_attention_layers(model.config), PairsRead()
    before = AttentionInterface._global_mapping.get(name)

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, *values: Any, **kwargs: Any
    ) -> Any:
        number = layer_number(module)
        if number in full and kwargs.get("sliding_window") is None:
            read.by_layer[number] = _share(values[1], query.shape[2])
        function = before or sys.modules[type(module).__module__].eager_attention_forward
        return function(module, query, key, *values, **kwargs)

    # Under the same name: for any other, the model's code leaves the selection out of the mask.
    AttentionInterface.register(name, attention)
    try:
        yield read
    finally:
        AttentionInterface._global_mapping.pop(name)
        if before is not None:
            AttentionInterface.register(name, before)


def _share(mask: Tensor | None, queries: int) -> float:
    """Return the share of the visible pairs of a whole context that a mask selects."""
    if mask is None:
        return 1.0
    selected = mask if mask.dtype == torch.bool else mask == 0
    pairs = selected.shape[0] * selected.shape[1] * queries * (queries + 1) // 2
    return float(selected.sum()) / pairs


def _require_causal(module: nn.Module, queries: int, keys: int, mask: Any) -> None:
    """Check that a mask lets each query see all earlier keys and its own, and no others.

    None stands for such a mask.

    Raises:
        ConfigurationError: if it does not.
    """
    if queries == keys and mask is None:
        return
    if queries == keys and isinstance(mask, Tensor) and mask.shape[-2] == queries:
        visible = (mask if mask.dtype == torch.bool else mask == 0)[..., :keys]
        position = torch.arange(keys, device=mask.device)
        if all(
            (visible[..., at : at + 256, :] == (position <= position[at : at + 256, None])).all()
            for at in range(0, queries, 256)
        ):
            return
    raise ConfigurationError(
        f"{type(module).__name__} masks keys of the context otherwise than causally (padding, "
        "packing or a prefix), which sparse_attention.prefill does not support; remove the pattern "
        "with ~sparse_attention.prefill.NAME, or choose another model"
    )


def _require_fitting(reads: Reads, layer: PrefillLayer) -> None:
    """Check the sizes of what a pattern returned.

    Raises:
        ConfigurationError: naming the part, its size and the right one.
    """
    for name, least in (("window", 1), ("query_block", 1), ("key_block", 1), ("last_queries", 0)):
        if getattr(reads, name) < least:
            raise ConfigurationError(
                f"sparse_attention.prefill: the pattern returned {name}={getattr(reads, name)} in "
                f"layer {layer.layer_idx}; it must be at least {least}"
            )
    batch, heads, length, _ = layer.query.shape
    blocks = [math.ceil(length / size) for size in (reads.query_block, reads.key_block)]
    for name, sizes in (("columns", [length]), ("blocks", blocks)):
        part = getattr(reads, name)
        if part is None:
            continue
        fits = part.shape[0] in (1, batch) and part.shape[1] in (1, heads)
        if part.dtype != torch.bool or not fits or list(part.shape[2:]) != sizes:
            raise ConfigurationError(
                f"sparse_attention.prefill: the pattern returned {name} of {part.dtype} and shape "
                f"{list(part.shape)} in layer {layer.layer_idx}; it must be a boolean tensor of "
                f"shape {[batch, heads, *sizes]}, where batch and heads may be 1"
            )
