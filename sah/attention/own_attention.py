"""A model's own attention to the keys of one row."""

# H query heads, G key-value heads, Q queries, K keys, D head dimension, V value dimension

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sah.attention.compute import dense_attention
from sah.attention.inputs import AttentionInputs
from sah.attention.keywords import check_keywords
from sah.attention.methods import all_visible
from sah.attention.visibility import Visibility


def own_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> Tensor:
    """Compute dense attention as the model defines it.

    Args:
        module: the layer's attention module.
        query: [1, H, Q, D].
        key: [1, G, K, D]; those in the window, if the layer has one.
        value: [1, G, K, V].
        visible: what each query may read, [1, 1, Q, K]; None for a single query, which reads all.
        scaling: as the other keywords, what transformers passes to its attention function.
        softcap: see `AttentionInputs`.
        s_aux: attention sinks.
        sliding_window: is in `visible`.
        kwargs: others; refused unless they change nothing.

    Returns:
        [1, Q, H, V].
    """
    check_keywords(module, query.shape[2], visible, kwargs)
    if softcap is None and s_aux is None:
        return sdpa_attention_forward(module, query, key, value, visible, scaling=scaling)[0]
    inputs = AttentionInputs(
        query=query,
        key=key,
        value=value,
        visibility=Visibility.of_call(query, key, visible),
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sinks=s_aux,
    )
    return dense_attention(inputs, all_visible(inputs)).transpose(1, 2).contiguous()
