"""Capture of queries and keys from every attention layer while a model reads text."""

# H query heads, G key-value heads, N tokens, D head dimension

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sah.attention import SparseAttention
from sah.attention.interface import layer_number
from sah.attention.session import AttentionSession
from sah.calibration.passages import Passage
from sah.maskers.causal import Causal
from sah.models.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """Queries and keys of one layer for one passage, after the rotary embedding."""

    layer: int
    query: Tensor
    """[H, N, D]"""
    key: Tensor
    """[G, N, D]"""
    scaling: float
    """Factor of q·k before the softmax."""


Reader = Callable[[LayerReading], None]


# Not inference_mode, as training uses the captured tensors.
@torch.no_grad()
def read_attention(model: LanguageModel, passage: Passage, read: Reader) -> None:
    """Pass the queries and keys of each layer to `read`; only one layer's are held at a time.

    They have the model's dtype and device. Sliding-window and other local layers are skipped,
    as sparse attention never applies to them.

    Args:
        model: computes with dense attention.
        passage: read as one sequence from its first token.
        read: called once per layer, in the order of the layers.
    """
    with _ReadingSession(model, read).attached(model.model):
        model.forward(passage.token_ids, None, logits=1)


class _ReadingSession(AttentionSession):
    """Passes the inputs of attention to a reader, and computes every layer densely."""

    def __init__(self, model: LanguageModel, read: Reader) -> None:
        layers = model.model.config.get_text_config(decoder=True).num_hidden_layers
        dense = SparseAttention(
            name="calibration", maskers={"all": Causal()}, dense_layers=range(layers)
        )
        super().__init__(dense, seed=0)
        self._read = read

    def _forward(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        layer = layer_number(module)
        if not self.is_local(layer, sliding_window):
            self._read(
                LayerReading(
                    layer=layer,
                    query=query[0],
                    key=key[0],
                    scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
                )
            )
        return super()._forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            softcap=softcap,
            s_aux=s_aux,
            sliding_window=sliding_window,
            **kwargs,
        )
