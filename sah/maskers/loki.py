"""Keys ranked in the few directions in which they differ most."""

# B batch, G key-value heads, N keys to encode, D head dimension, V value dimension
# R directions kept

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.attention.index import in_chunks
from sah.attention.selection import require_fraction


@dataclass(frozen=True, kw_only=True)
class Loki(TopKMasker):
    """Add the candidates that score highest on their keys' principal components (Loki).

    arXiv:2406.02542. With P the eigenvectors of the keys' covariance, the largest eigenvalue
    first, q·k = (qP)·(kP). The first R columns alone rank the keys:

        s = (q·P_R)·(k·P_R),  R = ⌈components_fraction·D⌉

    The few keys of an attention sink differ from all others in a direction of little variance,
    and are missed: put Sink before, as the preset does.

    Deviations. The paper finds P on a calibration text; here it is that of the context's own
    keys, after the rotary embedding, for each layer and key-value head, and stays as it is for
    the keys that follow. Without a context it is that of the question's keys, later ones
    included. The paper rotates the whole cache by P, whose first R columns are then there for
    nothing; here they are an index beside the cache, in the type of the keys.
    """

    components_fraction: float = 0.25
    """Share of the head dimension that ranks the keys, in (0, 1]; rounded up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("Loki", "components_fraction", self.components_fraction)

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        components = math.ceil(inputs.key.shape[-1] * self.components_fraction - 1e-9)
        index = inputs.index(self, partial(ProjectedKeys, components=components))
        query = inputs.per_head(inputs.grouped(inputs.query.float()) @ index.directions)
        (projected,) = index.codes
        return inputs.dot(query, projected)


# Keys that are converted to float32 and projected at a time.
_CHUNK_KEYS = 4096


class ProjectedKeys(EncodedKeys):
    """Every key on the first principal components of the context's keys."""

    def __init__(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"], *, components: int
    ) -> None:
        self.directions: Float[Tensor, "B G D R"] = _principal_components(key)[..., :components]
        super().__init__(self._projected, key, value, dim=2)

    @property
    def nbytes(self) -> int:
        """Memory of the projected keys and of the directions, in bytes."""
        return super().nbytes + self.directions.nbytes

    def _projected(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> list[Float[Tensor, "B G N R"]]:
        def project(some: Tensor, _: Tensor) -> list[Tensor]:
            return [(some.float() @ self.directions).to(some.dtype)]

        return in_chunks(project, key, value, chunk_keys=_CHUNK_KEYS, dim=2)


def _principal_components(key: Float[Tensor, "B G N D"]) -> Float[Tensor, "B G D D"]:
    """Orthonormal directions as columns, the one of the largest variance first.

    Of centred keys: what all keys have in common adds the same to every score.
    """
    centred = key.float() - key.float().mean(2, keepdim=True)
    covariance = centred.transpose(-1, -2) @ centred
    # A model that yields NaN is told by its logits, not by a decomposition that fails.
    directions: Tensor = torch.linalg.eigh(covariance.nan_to_num(0.0, 0.0, 0.0)).eigenvectors
    return directions.flip(-1)
