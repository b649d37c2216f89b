"""The attention that each key of a context receives while the model repeats the context (KVzip)."""

# B batch, H query heads, G key-value heads, K keys of the context, L of them in a chunk, Q queries

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sah.attention.eviction.received import strongest_attention
from sah.attention.layers import full_attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How the model repeats a context."""

    chunk: int
    """Tokens of the context that it repeats at a time."""
    sinks: int
    """Keys at the beginning over which the attention is normalised, beside those of the chunk."""


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What a model that repeated a context attended to."""

    strongest: dict[int, Float[Tensor, "B G K"]]
    """The largest attention weight of each key, by layer; 0 for keys that were not repeated, and
    empty if there are no others."""
    leading: int
    """Keys at the beginning that always stay: sinks, or the chat template before the context."""
    seconds: float


@contextmanager
def attending_to_chunk(
    model: "PreTrainedModel",
    strongest: dict[int, Float[Tensor, "B G K"]],
    *,
    begin: int,
    end: int,
    sinks: int,
    length: int,
) -> Iterator[None]:
    """Find the largest weight of each key of a chunk, over what the model reads inside the block.

    The weights are a softmax over the sinks, the chunk, and the tokens that are read up to the
    query; they are those of no single step of the model, which attends to the whole context.

    Args:
        model: its cache holds the context when the block begins.
        strongest: is filled for the keys of the chunk, in the layers of full attention.
        begin: the chunk's first key.
        end: the key after the chunk.
        sinks: keys at the beginning; at most `begin`.
        length: keys of the context, K.
    """
    # Draws in half of transformers, which planning a sweep does not need.
    from sah.attention.interface import attention_observed, layer_number, scaling_of

    layers = full_attention_layers(model.config)

    def observe(module: nn.Module, query: Tensor, key: Tensor, keywords: dict[str, Any]) -> None:
        number = layer_number(module)
        if number not in layers:
            return
        parts = [key[:, :, :sinks], key[:, :, begin:end], key[:, :, length:]]
        weights = strongest_attention(
            query,
            torch.cat(parts, dim=2),
            scaling=scaling_of(query, keywords),
            softcap=keywords.get("softcap"),
            sinks=keywords.get("s_aux"),
        )[..., sinks : sinks + end - begin]  # B H L
        by_group = weights.unflatten(1, (key.shape[1], -1)).amax(2)  # B G L
        if number not in strongest:
            strongest[number] = by_group.new_zeros(*by_group.shape[:2], length)
        found = strongest[number][..., begin:end]
        torch.maximum(found, by_group, out=found)

    with attention_observed(model, observe):
        yield
