"""Keys ranked by product quantisation."""

# B batch, H query heads, G key-value heads, S query rows per group, K keys, N keys to encode
# D head dimension, M sub-vectors, C centroids, E dimension of a clustered sub-vector

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.maskers.shared.lookup import sum_of_lookups


@dataclass(frozen=True, kw_only=True)
class PQCache(TopKMasker):
    """Add the candidates whose quantised keys score highest (PQCache, arXiv:2407.12820).

    Each key is split into `subvectors`, each replaced by the nearest of 2^bits centroids, found
    by k-means over the context's keys per layer and key-value head. The score of a key is
    Σ_m q_m·centroid(code_m): one table look-up per sub-vector. Keys after the context are assigned
    to the nearest existing centroids.

    The query heads of a key-value head select together, as in the authors' code (pq_search.py):
    by the sum of their softmax over the candidates.

    Deviations. k-means starts from keys drawn with the experiment's seed and runs for a fixed
    number of `iterations`, where the paper's number depends on the time that the prefill leaves.
    The paper excludes the first and last tokens from the clustering and reads them exactly; here
    they are clustered too, and Sink and Local before this masker select them, as in the preset.
    With `metric="ip"` keys are extended by one dimension to a common norm before clustering, so
    that the nearest centroid has the largest inner product.
    """

    batched: ClassVar[bool] = True

    share: Literal["head", "group", "all"] = "group"
    """Query heads that select together, as in `TopKMasker`; the group as in the authors' code."""
    subvectors: int = 2
    """M, the parts of a key that are coded separately; must divide the head dimension."""
    bits: int = 6
    """Bits per code, from 1 to 8; each sub-vector has 2^bits centroids."""
    iterations: int = 10
    """Iterations of k-means."""
    metric: Literal["l2", "ip"] = "l2"
    """Distance to the centroids: Euclidean (l2) or inner product (ip)."""
    workspace_bytes: int = 2**26
    """Approximate memory limit of the distances to centroids, in bytes; keys are chunked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subvectors < 1:
            raise ValueError(f"PQCache: subvectors must be at least 1, got {self.subvectors}")
        if not 1 <= self.bits <= 8:
            raise ValueError(f"PQCache: bits must be from 1 to 8, got {self.bits}")
        if self.iterations < 0:
            raise ValueError(f"PQCache: iterations must be at least 0, got {self.iterations}")
        if self.metric not in ("l2", "ip"):
            raise ValueError(f"PQCache: metric must be l2 or ip, got {self.metric!r}")
        if self.workspace_bytes < 2**16:
            raise ValueError(
                f"PQCache: workspace_bytes must be at least 2**16, got {self.workspace_bytes}"
            )

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        dim = inputs.key.shape[-1]
        if dim % self.subvectors:
            raise ValueError(
                f"PQCache: subvectors={self.subvectors} does not divide the head dimension {dim}"
            )
        index = inputs.index(
            self, lambda key, value: ProductQuantisedKeys(self, key, value, inputs.index_seed)
        )
        query = inputs.grouped(inputs.query).float()
        query = query.unflatten(-1, (self.subvectors, -1))  # B G S M D/M
        # Metric ip adds a dimension to the centroids, which queries do not have.
        centroids = index.centroids[..., : dim // self.subvectors]
        tables = query.transpose(2, 3) @ centroids.transpose(-1, -2)  # B G M S C
        (codes,) = index.codes
        return inputs.per_head(sum_of_lookups(tables, codes))


class ProductQuantisedKeys(EncodedKeys):
    """Codes of all keys, one byte per sub-vector, and their centroids."""

    row_tensors = ("centroids", "_longest")

    def __init__(
        self,
        settings: PQCache,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        self._settings = settings
        self._longest = self._split(key).norm(dim=-1, keepdim=True).amax(3, keepdim=True)
        vectors = self._vectors(key)
        self.centroids = self._clustered(vectors, seed)
        super().__init__(None, key, value)

    @property
    def nbytes(self) -> int:
        """Memory of codes and centroids, in bytes."""
        return super().nbytes + self.centroids.nbytes

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> list[UInt8[Tensor, "B G M N"]]:
        """Return the code of every sub-vector."""
        return [self._nearest(self._vectors(key))]

    def _split(self, key: Float[Tensor, "B G N D"]) -> Float[Tensor, "B G M N E"]:
        parts: Tensor = key.float().unflatten(-1, (self._settings.subvectors, -1))
        return parts.transpose(2, 3)

    def _vectors(self, key: Float[Tensor, "B G N D"]) -> Float[Tensor, "B G M N E"]:
        """Return the vectors to cluster: sub-vectors, extended by one dimension for ip."""
        vectors = self._split(key)
        if self._settings.metric == "l2":
            return vectors
        norms = vectors.norm(dim=-1, keepdim=True)
        # Later keys may be longer than every context key; clamp.
        missing = (self._longest**2 - norms**2).clamp(min=0).sqrt()
        return torch.cat([vectors, missing], dim=-1)

    def _clustered(
        self, vectors: Float[Tensor, "B G M N E"], seed: int
    ) -> Float[Tensor, "B G M C E"]:
        """Run Lloyd's k-means; a centroid without members keeps its position."""
        count, number = vectors.shape[3], 2**self._settings.bits
        generator = torch.Generator(vectors.device).manual_seed(seed)
        first = torch.randperm(count, generator=generator, device=vectors.device)[:number]
        if count < number:
            # More centroids than keys: fill up with copies, which get no members.
            again = torch.zeros(number - count, dtype=torch.long, device=vectors.device)
            first = torch.cat([first, again])
        self.centroids = vectors[:, :, :, first]
        for _ in range(self._settings.iterations):
            code = self._nearest(vectors).long().unsqueeze(-1)
            members = torch.zeros_like(self.centroids[..., :1]).scatter_add_(
                3, code, torch.ones_like(vectors[..., :1])
            )
            sums = torch.zeros_like(self.centroids).scatter_add_(
                3, code.expand_as(vectors), vectors
            )
            self.centroids = torch.where(members > 0, sums / members.clamp(min=1), self.centroids)
        return self.centroids

    def _nearest(self, vectors: Float[Tensor, "B G M N E"]) -> UInt8[Tensor, "B G M N"]:
        """Return the code of every sub-vector, in chunks of bounded memory."""
        rows = vectors.shape[:3].numel()
        chunk = max(1, self._settings.workspace_bytes // (4 * rows * self.centroids.shape[3]))
        half_norms = (self.centroids**2).sum(-1).unsqueeze(-2) / 2
        codes = [
            # The nearest centroid minimises |c|²/2 - x·c.
            (half_norms - part @ self.centroids.transpose(-1, -2)).argmin(-1).to(torch.uint8)
            for part in vectors.split(chunk, dim=3)
        ]
        return torch.cat(codes, dim=-1)
