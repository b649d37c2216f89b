"""One layer of a prefilled context, as evictors see it."""

# B batch, H query heads, G key-value heads, W last queries, K keys, D head dimension

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sah.attention.eviction.witness import Witnessed
from sah.attention.inputs import AttentionInputs, Visibility


@dataclass(frozen=True, kw_only=True)
class ContextLayer:
    """Keys and values of a context in one layer, and what was remembered of its queries."""

    key: Float[Tensor, "B G K D"]
    """After the rotary embedding, as cached."""
    value: Float[Tensor, "B G K V"]
    witnessed: Witnessed
    layer_idx: int
    layers: int
    """Number of layers of the model."""
    seed: int
    """Derived from the experiment's seed and the layer."""

    @property
    def length(self) -> int:
        """Keys of the context, K."""
        return self.key.shape[2]

    @property
    def groups(self) -> int:
        """Key-value heads, G."""
        return self.key.shape[1]

    def window_attention(self, window: int) -> Float[Tensor, "B H W K"]:
        """Return the attention weights of the last `window` queries over all keys, in float32.

        Causal, soft-capped like the model's scores, and without the share of its attention sinks.
        """
        window = min(window, self.length)
        queries = self.witnessed.queries
        assert queries.shape[2] >= window, "the evictor's witness asks for fewer queries"
        position = torch.arange(self.length, device=self.key.device)
        visible = position <= position[self.length - window :, None]  # W K
        inputs = AttentionInputs(
            query=queries[:, :, queries.shape[2] - window :],
            key=self.key,
            value=self.value,
            visibility=Visibility(visible.expand(queries.shape[0], 1, window, self.length)),
            scaling=self.witnessed.scaling,
            softcap=self.witnessed.softcap,
        )
        return torch.softmax(inputs.scores.masked_fill(~inputs.visible, -torch.inf), dim=-1)

    def mean_over_group(self, per_head: Shaped[Tensor, "B H *rest"]) -> Shaped[Tensor, "B G *rest"]:
        """Average over the query heads of each key-value head."""
        mean: Tensor = per_head.unflatten(1, (self.groups, -1)).mean(2)
        return mean
