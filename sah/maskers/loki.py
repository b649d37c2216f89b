"""Keys ranked by their first principal components."""

# B batch, G key-value heads, N keys to encode, D head dimension, V value dimension
# H query heads, Q queries, K keys, R directions kept

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.attention.index import encode_in_chunks
from sah.attention.selection import require_fraction


@dataclass(frozen=True, kw_only=True)
class Loki(TopKMasker):
    """Add the candidates that score highest on the keys' first principal components.

    Loki (arXiv:2406.02542). With P the eigenvectors of the keys' covariance, the largest
    eigenvalue first, q·k = (qP)·(kP). The first R columns P_R rank the keys:

        s = (q·P_R)·(k·P_R),  R = ⌈components_fraction·D⌉

    Attention sinks differ from other keys in a direction of little variance and are missed: put
    Sink first, as the preset does.

    Deviations. The paper computes P on a calibration text; here P comes from the keys of the
    context after the rotary embedding, per layer and key-value head, and is kept for later keys.
    Without a context it comes from all keys of the question. The paper rotates the whole cache
    by P, so that the first R columns take no extra memory; here they are an index beside the
    cache, in the dtype of the keys.
    """

    batched: ClassVar[bool] = True

    components_fraction: float = 0.25
    """Share of the head dimension that ranks the keys, in (0, 1]; rounded up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("Loki", "components_fraction", self.components_fraction)

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        components = math.ceil(inputs.key.shape[-1] * self.components_fraction - 1e-9)
        index = inputs.index(self, partial(ProjectedKeys, components=components))
        query = inputs.per_head(inputs.grouped(inputs.query.float()) @ index.directions)  # B H Q R
        (projected,) = index.codes
        return inputs.dot(query, projected)


# Number of keys that are converted to float32 and projected at a time.
_CHUNK_KEYS = 4096


class ProjectedKeys(EncodedKeys):
    """Projections of the keys on the first principal components of the context's keys."""

    row_tensors = ("directions",)

    def __init__(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"], *, components: int
    ) -> None:
        self.directions: Float[Tensor, "B G D R"] = _principal_components(key)[..., :components]
        super().__init__(None, key, value, dim=2)

    @property
    def nbytes(self) -> int:
        """Memory of projected keys and directions, in bytes."""
        return super().nbytes + self.directions.nbytes

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> list[Float[Tensor, "B G N R"]]:
        """Project keys, [B, G, N, R]."""

        def project(some: Tensor, _: Tensor) -> list[Tensor]:
            return [(some.float() @ self.directions).to(some.dtype)]

        return encode_in_chunks(project, key, value, chunk_keys=_CHUNK_KEYS, dim=2)


def _principal_components(key: Float[Tensor, "B G N D"]) -> Float[Tensor, "B G D D"]:
    """Return orthonormal directions as columns, the one of the largest variance first.

    Keys are centred, because their mean adds the same to every score.
    """
    centred = key.float() - key.float().mean(2, keepdim=True)
    covariance = centred.transpose(-1, -2) @ centred
    # NaN of a broken model must show in its logits, not as a failed decomposition.
    directions: Tensor = torch.linalg.eigh(covariance.nan_to_num(0.0, 0.0, 0.0)).eigenvectors
    return directions.flip(-1)
