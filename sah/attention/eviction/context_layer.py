"""One layer of a prefilled context, or of what is left of a sequence, as evictors see it."""

# B batch, H query heads, G key-value heads, W last queries, K keys, D/V dimensions

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sah.attention.eviction.received import attention_weights
from sah.attention.eviction.reconstruction import Reconstructed, Reconstruction
from sah.attention.eviction.rotary import FutureQueries, Moments
from sah.attention.eviction.witness import Witnessed
from sah.errors import ConfigurationError


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
    reconstructions: Mapping[Reconstruction, Reconstructed] = field(default_factory=dict)
    """What the evictor's witness asks for."""
    age: Int[Tensor, "B G K"] | None = None
    """Positions between each key and the last query, where keys are scored again while decoding
    and earlier ones are gone; None for a whole context."""

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
        return attention_weights(
            queries[:, :, queries.shape[2] - window :],
            self.key,
            scaling=self.witnessed.scaling,
            softcap=self.witnessed.softcap,
            sinks=self.witnessed.sinks,
            age=self.age,
        )

    def reconstructed(self, asked: Reconstruction) -> tuple[Float[Tensor, "B G K"], int]:
        """Return what the model attended to when it repeated the context.

        Returns:
            The largest attention weight of each key, and the number of keys at the beginning that
            always stay.
        """
        found = self.reconstructions[asked]
        strongest = found.strongest.get(self.layer_idx)
        if strongest is None:
            strongest = self.key.new_zeros(self.key.shape[:3], dtype=torch.float32)
        return strongest, found.leading

    def future(self, asked: FutureQueries) -> Moments:
        """Return the moments of the queries to come, as the evictor's witness asks for.

        Raises:
            ConfigurationError: if the layer rotates its queries in an unknown way.
        """
        if asked not in self.witnessed.future:
            raise self._unknown_rotary("queries")
        return self.witnessed.future[asked]

    def unrotated_key(self) -> Float[Tensor, "B G K D"]:
        """Return the keys before the rotary embedding, in float32.

        Raises:
            ConfigurationError: if the layer rotates its keys in an unknown way.
        """
        if self.witnessed.rotary is None:
            raise self._unknown_rotary("keys")
        return self.witnessed.rotary.undo(self.key)

    def mean_over_group(self, per_head: Shaped[Tensor, "B H *rest"]) -> Shaped[Tensor, "B G *rest"]:
        """Average over the query heads of each key-value head."""
        mean: Tensor = per_head.unflatten(1, (self.groups, -1)).mean(2)
        return mean

    def _unknown_rotary(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"sparse_attention.evict: it needs the {what} before the rotary embedding, but "
            f"{type(self.witnessed.module).__name__} does not rotate whole {what} by "
            "apply_rotary_pos_emb; choose another evictor, or keep the layer dense with "
            f"sparse_attention.dense_layers=[{self.layer_idx}]"
        )
