"""Heads that need the whole context, and heads that stream."""

# B batch, G key-value heads, K keys

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.content.calibration_files import find_calibration
from sah.errors import ConfigurationError
from sah.evictors.streaming.ends import first_and_last
from sah.evictors.streaming.head_scores import lowest_heads


@dataclass(frozen=True, kw_only=True)
class DuoAttention:
    """Keep all keys in retrieval heads, and only first and recent keys in streaming heads.

    DuoAttention, arXiv:2410.10819. A score is trained for each layer and key-value head, and the
    heads with the lowest scores stream. `sah calibrate duo_attention` trains them; the authors
    publish theirs as `full_attention_heads.tsv` (github.com/mit-han-lab/duo-attention,
    attn_patterns). As in kvpress, the prefill is dense in all heads.
    """

    witness: ClassVar = Witness()
    heads: str
    """Scores: `model@digest`, composed from the model, or the path of a .tsv file with a row of
    numbers for each layer and a column for each key-value head."""
    content: Mapping[str, Any] | None = field(default=None, hash=False)
    """Digest of a file given by its path, as composed; another one is refused."""
    streaming: float = 0.5
    """Share of all heads that stream, in [0, 1]."""
    sinks: int = 128
    """First keys that a streaming head keeps; the published config.json has sink_size."""
    recent: int = 256
    """Last keys that a streaming head keeps; the published config.json has recent_size."""

    def __post_init__(self) -> None:
        if not 0 <= self.streaming <= 1 or self.sinks < 0 or self.recent < 1:
            raise ValueError(
                "DuoAttention: streaming must be in [0, 1], sinks at least 0 and recent at least 1,"
                f" got streaming={self.streaming}, sinks={self.sinks} and recent={self.recent}"
            )
        self._streaming()

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        table, number = self._streaming(), layer.layer_idx
        if (len(table), len(table[0])) != (layer.layers, layer.groups):
            raise ConfigurationError(
                f"DuoAttention: heads={self.heads} scores {len(table)} layers of {len(table[0])} "
                f"heads, but the model has {layer.layers} of {layer.groups}; run `sah calibrate "
                "duo_attention` for this model, or give its own file"
            )
        streams = torch.tensor(table[number], device=layer.key.device).view(1, -1, 1)
        ends = first_and_last(layer, self.sinks, self.recent)
        return (ends | ~streams).expand(layer.key.shape[0], -1, -1).clone()

    def _streaming(self) -> tuple[tuple[bool, ...], ...]:
        path = find_calibration("duo_attention", self.heads)
        return lowest_heads(path, self.streaming, (self.content or {}).get("heads"))
