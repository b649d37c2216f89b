"""Keys ranked by soft hash collisions."""

# B batch, H query heads, G key-value heads, Q queries, S query rows per group
# K keys, N keys to encode, D head dimension, L tables, P planes per table, C corners: 2^P

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.attention.index import encode_in_chunks
from sah.maskers.shared.hyperplanes import Hyperplanes
from sah.maskers.shared.lookup import sum_of_looked_up_rows


@dataclass(frozen=True, kw_only=True)
class SOCKET(TopKMasker):
    """Add the candidates with the most soft hash collisions (arXiv:2602.06283).

    Each of `tables` hash tables has `planes` random hyperplanes, so that a key is in one of
    2^planes buckets per table. A query has a probability for each bucket:
    softmax(h·corner / tau) with h = tanh(q·w) / √D. A key's score is the sum of its buckets'
    probabilities over the tables, times the norm of its value.

    Deviations: none known. The softmax over 2^planes corners is computed as the product of the
    softmaxes over each half of the planes, which is equal.
    """

    planes: int = 10
    """Hyperplanes per table, from 1 to 15 (K in the paper)."""
    tables: int = 60
    """Hash tables (L in the paper)."""
    tau: float = 0.5
    """Temperature, positive; near 0 only the query's own bucket counts."""
    weigh_by_value: bool = True
    """Multiply a key's score by the norm of its value, as in the paper.

    Where norms vary more than collisions, they dominate the order (docs/methods.md).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.planes <= 15:
            raise ValueError(f"SOCKET: planes must be from 1 to 15, got {self.planes}")
        if self.tables < 1:
            raise ValueError(f"SOCKET: tables must be at least 1, got {self.tables}")
        if not self.tau > 0:
            raise ValueError(f"SOCKET: tau must be positive, got {self.tau}")

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        index = inputs.index(
            self, lambda key, value: HashedKeys(self, key, value, inputs.index_seed)
        )
        scores = self._collisions(inputs, index)
        if self.weigh_by_value:
            scores = scores * index.value_norms.unsqueeze(2)
        return inputs.per_head(scores)

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "B H Q K"]
    ) -> Float[Tensor, "B H Q K"]:
        # A score estimates a share of attention: the softmax of its logarithm normalises it.
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()

    def _collisions(self, inputs: AttentionInputs, index: "HashedKeys") -> Float[Tensor, "B G S K"]:
        """Sum, over the tables, each query's probability of each key's bucket."""
        query = inputs.grouped(inputs.query).float()  # B G S D
        # A few queries at a time, because their probabilities take S · L · 2^P numbers.
        chunks = [self._collisions_of(some, index) for some in query.split(_QUERIES_AT_ONCE, dim=2)]
        return torch.cat(chunks, dim=2)

    def _collisions_of(
        self, query: Float[Tensor, "B G S D"], index: "HashedKeys"
    ) -> Float[Tensor, "B G S K"]:
        signs = torch.tanh(query @ index.hyperplanes.normals) / query.shape[-1] ** 0.5
        probability = self._bucket_probabilities(signs, index)
        sums = [
            sum_of_looked_up_rows(table, rows)  # S K
            for number in range(query.shape[0])
            for rows, table in zip(index.table_rows(number), probability[number], strict=True)
        ]
        collisions: Tensor = torch.stack(sums).unflatten(0, query.shape[:2])
        return collisions

    def _bucket_probabilities(
        self, signs: Float[Tensor, "B G S LP"], index: "HashedKeys"
    ) -> Float[Tensor, "B G L2P S"]:
        """Return each query's probability of each bucket, with the tables stacked."""
        scaled: Tensor = signs.unflatten(-1, (self.tables, self.planes)) / self.tau
        split = index.first_corners.shape[0]
        # The softmax over all corners is the product of the softmaxes over each half of the planes.
        low = torch.softmax(scaled[..., :split] @ index.first_corners.float(), dim=-1)
        high = torch.softmax(scaled[..., split:] @ index.last_corners.float(), dim=-1)
        # Bit p of a bucket's number is the side of plane p, so that the first planes vary fastest.
        products = torch.einsum("bgslh,bgslw->bglhws", high, low)
        return products.contiguous().flatten(2, 4)  # contiguous for sum_of_looked_up_rows


_QUERIES_AT_ONCE = 16
_CHUNK_KEYS = 1024


def _corners(planes: int, device: torch.device) -> Int8[Tensor, "P C"]:
    """Return all sign vectors as columns; bit p of b gives the sign of plane p in column b."""
    bucket = torch.arange(2**planes, device=device)
    plane = torch.arange(planes, device=device)
    return ((bucket >> plane[:, None] & 1) * 2 - 1).to(torch.int8)


class HashedKeys(EncodedKeys):
    """Bucket of every key in every table, two bytes each, and norms of the values."""

    def __init__(
        self,
        settings: SOCKET,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        tables, planes = settings.tables, settings.planes
        self.hyperplanes = Hyperplanes(key, tables=tables, planes=planes, seed=seed)
        half = planes // 2
        self.first_corners = _corners(half, key.device)
        self.last_corners = _corners(planes - half, key.device)
        self._first_row = torch.arange(tables, device=key.device).int() << planes
        super().__init__(self._hash, key, value, dim=2)

    @property
    def nbytes(self) -> int:
        """Memory of buckets, norms and planes, in bytes."""
        return super().nbytes + self.hyperplanes.normals.nbytes

    @property
    def value_norms(self) -> Float[Tensor, "B G K"]:
        """Norm of every value vector."""
        return self.codes[1]

    def table_rows(self, batch: int) -> Int[Tensor, "G K L"]:
        """Return the row of each key's bucket in the stacked tables."""
        return self.codes[0][batch].int().add_(self._first_row)

    def _hash(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> list[Tensor]:
        return encode_in_chunks(self._hash_chunk, key, value, chunk_keys=_CHUNK_KEYS, dim=2)

    def _hash_chunk(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int[Tensor, "B G N L"], Float[Tensor, "B G N"]]:
        return self.hyperplanes.buckets(key.float()), value.float().norm(dim=-1)
