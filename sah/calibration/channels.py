"""Channel importance of queries and keys: DoubleSparsity's offline step."""

# H query heads, G key-value heads, N tokens, D head dimension

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from sah.calibration.capture import LayerReading, read_attention
from sah.calibration.passages import Passage
from sah.models.language_model import LanguageModel

logger = logging.getLogger(__name__)


class ChannelStatistics:
    """Mean |q|, |k| and |q·k| per channel of one layer, over any number of passages.

    The mean of |q_c · k_c| is exact and over all causal pairs of a query and a key, the query's own
    included: as |q_c · k_c| = |q_c| · |k_c|, its sum over the keys of a query is |q_c| times the
    running sum of |k_c|. Passages are weighted by their number of pairs.
    """

    def __init__(self) -> None:
        self._query: Tensor | float = 0.0
        self._key: Tensor | float = 0.0
        self._product: Tensor | float = 0.0
        self._tokens = self._pairs = 0

    def add(self, query: Tensor, key: Tensor) -> None:
        """Add a passage: queries [H, N, D] and keys [G, N, D]."""
        # float32 would lose small products in sums over millions of pairs.
        query, key = query.abs().double(), key.abs().double()
        tokens = query.shape[1]
        # H N D: for each query, the sum of |k| over the keys it sees
        seen = key.cumsum(1).repeat_interleave(query.shape[0] // key.shape[0], dim=0)
        self._query += query.sum(1)  # H D
        self._key += key.sum(1)  # G D
        self._product += (query * seen).sum(1)  # H D
        self._tokens += tokens
        self._pairs += tokens * (tokens + 1) // 2

    def means(self) -> dict[str, Tensor]:
        """Return the means: `q` and `qk` per query head [H, D], `k` per key-value head [G, D]."""
        means = {
            "q": self._query / self._tokens,
            "k": self._key / self._tokens,
            "qk": self._product / self._pairs,
        }
        return {kind: torch.as_tensor(mean) for kind, mean in means.items()}


def ranked_channels(
    model: LanguageModel, passages: Sequence[Passage]
) -> dict[str, list[list[int]]]:
    """Rank the channels of every layer and head by their mean magnitude on these passages.

    Returns:
        For each `model.layers.{i}.self_attn.{q_proj|k_proj|qk_proj}` (the keys of the authors'
        files) one list per head, of all channel numbers in descending importance.
    """
    statistics: dict[int, ChannelStatistics] = {}

    def read(reading: LayerReading) -> None:
        statistics.setdefault(reading.layer, ChannelStatistics()).add(reading.query, reading.key)

    for number, passage in enumerate(passages, start=1):
        read_attention(model, passage, read)
        logger.info("passage %d of %d", number, len(passages))
    return {
        f"model.layers.{layer}.self_attn.{kind}_proj": mean.argsort(
            dim=-1, descending=True, stable=True
        ).tolist()
        for layer, of_layer in sorted(statistics.items())
        for kind, mean in of_layer.means().items()
    }
