"""The norms of values after the output projection of their layer."""

# B batch, H query heads, G key-value heads, K keys, V value dimension, E hidden dimension

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sah.attention.eviction.context_layer import ContextLayer
from sah.errors import ConfigurationError

# Bounds the memory of the projected values of one head.
_BLOCK_KEYS = 4096


def projected_norms(layer: ContextLayer) -> Float[Tensor, "B G K"]:
    """Return ‖W_o v‖₁ of each key's value, averaged over the query heads of its group.

    Raises:
        ConfigurationError: if the layer has no output projection by a known name.
    """
    heads, value = layer.witnessed.queries.shape[1], layer.value
    weight = _output_weight(layer).unflatten(1, (heads, -1))  # E H V
    norms = []
    for head in range(heads):
        blocks = value[:, head * layer.groups // heads].split(_BLOCK_KEYS, dim=1)  # B K V
        parts = [(block @ weight[:, head].T).abs().sum(-1, dtype=torch.float32) for block in blocks]
        norms.append(torch.cat(parts, dim=1))
    return layer.mean_over_group(torch.stack(norms, dim=1))


def _output_weight(layer: ContextLayer) -> Float[Tensor, "E HV"]:
    module, width = layer.witnessed.module, layer.witnessed.queries.shape[1] * layer.value.shape[3]
    for name in ("o_proj", "out_proj", "dense", "wo"):
        projection = getattr(module, name, None)
        if isinstance(projection, nn.Linear) and projection.weight.shape[1] == width:
            # Of a model whose weights are split over processes.
            whole = getattr(projection, "whole_weight", None)
            return projection.weight.detach() if whole is None else whole().detach()
    raise ConfigurationError(
        f"sparse_attention.evict: CriticalKV needs the output projection of layer "
        f"{layer.layer_idx}, but {type(module).__name__} has no plain linear layer o_proj, "
        "out_proj, dense or wo; choose another evictor"
    )
