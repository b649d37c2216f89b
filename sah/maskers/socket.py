"""Soft collisions with hashed keys."""

# B batch, G key-value heads, S query rows per group, K keys, N keys to encode
# D head dimension, L tables, P planes per table

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, Budget, EncodedKeys, select_top
from sah.attention.index import in_chunks


@dataclass(frozen=True, kw_only=True)
class SOCKET(Budget):
    """Add the candidates that a query collides with most, softly (SOCKET, 2026).

    Each of `tables` hash tables cuts space with `planes` random hyperplanes, so that a key lies
    in one of 2^planes buckets per table. A query does not lie in one bucket but has a
    probability for each: softmax(h·corner / tau) with h = tanh(q·w) / √D. A key scores the sum,
    over the tables, of the probability of its bucket, times the norm of its value.

    Deviations: none known. The softmax over 2^planes corners is computed as the product of
    two softmaxes, one over each half of the planes, which is the same.
    """

    planes: int = 10
    """Hyperplanes per table, from 1 to 15 (K in the paper)."""
    tables: int = 60
    """Hash tables (L in the paper)."""
    tau: float = 0.5
    """Temperature: near 0 only the query's own bucket counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.planes <= 15:
            raise ValueError(f"SOCKET: planes must be from 1 to 15, got {self.planes}")
        if self.tables < 1:
            raise ValueError(f"SOCKET: tables must be at least 1, got {self.tables}")
        if not self.tau > 0:
            raise ValueError(f"SOCKET: tau must be positive, got {self.tau}")

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        index = inputs.index(
            self, lambda key, value: HashedKeys(self, key, value, inputs.index_seed)
        )
        scores = self._collisions(inputs, index) * index.value_norms.unsqueeze(2)
        budget, bound = self.keys(inputs)
        return mask.add(select_top(inputs.per_head(scores), mask.candidates, budget, bound))

    def _collisions(self, inputs: AttentionInputs, index: "HashedKeys") -> Float[Tensor, "B G S K"]:
        """Σ over the tables of the probability that each query has for each key's bucket."""
        query = inputs.grouped(inputs.query).float()
        batch, groups, rows, dim = query.shape
        keys = inputs.key.shape[2]
        scores = query.new_empty(batch, groups, rows, keys)
        for b in range(batch):
            for g in range(groups):
                row_of = index.table_rows(b, g)
                # A few queries at a time: their probabilities take S · L · 2^P numbers.
                for start in range(0, rows, _QUERIES_AT_ONCE):
                    some = query[b, g, start : start + _QUERIES_AT_ONCE]
                    signs = torch.tanh(some @ index.plane_columns) / dim**0.5
                    probability = self._bucket_probabilities(signs)
                    scores[b, g, start : start + len(some)] = torch.nn.functional.embedding_bag(
                        row_of, probability, mode="sum"
                    ).T
        return scores

    def _bucket_probabilities(self, signs: Float[Tensor, "S LP"]) -> Float[Tensor, "L2P S"]:
        """For each table and bucket, one row after the other: each query's probability."""
        scaled = signs.unflatten(-1, (self.tables, self.planes)) / self.tau
        half = self.planes // 2
        low, high = (
            torch.softmax(part @ _corners(part.shape[-1], part), dim=-1)
            for part in (scaled[..., :half], scaled[..., half:])
        )
        # Bucket number: bit p is the side of plane p, so that the first planes vary fastest.
        products = torch.einsum("slh,slw->lhws", high, low)
        # embedding_bag is fifty times slower on rows that are not contiguous.
        return products.contiguous().flatten(0, 2)


_QUERIES_AT_ONCE = 16
_CHUNK_KEYS = 1024


def _corners(planes: int, like: Tensor) -> Float[Tensor, "P C"]:
    """All sign vectors of length P as columns; in column b, sign p is bit p of b."""
    bucket = torch.arange(2**planes, device=like.device)
    plane = torch.arange(planes, device=like.device)
    return ((bucket >> plane[:, None] & 1) * 2 - 1).to(like.dtype)


class HashedKeys(EncodedKeys):
    """The bucket of every key in every table, two bytes each, and the norms of the values."""

    def __init__(
        self,
        settings: SOCKET,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        generator = torch.Generator(key.device).manual_seed(seed)
        self._settings = settings
        self.plane_columns: Float[Tensor, "D LP"] = torch.randn(
            key.shape[-1],
            settings.tables * settings.planes,
            generator=generator,
            device=key.device,
        )
        self._first_row = torch.arange(settings.tables, device=key.device).int() << settings.planes
        super().__init__(self._hash, key, value, dim=2)

    @property
    def nbytes(self) -> int:
        """Memory of buckets, norms and planes, in bytes."""
        return super().nbytes + self.plane_columns.nbytes

    @property
    def value_norms(self) -> Float[Tensor, "B G K"]:
        """The length of every value vector."""
        return self.codes[1]

    def table_rows(self, batch: int, group: int) -> Int[Tensor, "K L"]:
        """For one key-value head, where each key's bucket lies if all tables are stacked."""
        return self.codes[0][batch, group].int() + self._first_row

    def _hash(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> list[Tensor]:
        return in_chunks(self._hash_chunk, key, value, chunk_keys=_CHUNK_KEYS, dim=2)

    def _hash_chunk(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int[Tensor, "B G N L"], Float[Tensor, "B G N"]]:
        side = (key.float() @ self.plane_columns >= 0).unflatten(-1, (-1, self._settings.planes))
        bits = torch.arange(self._settings.planes, device=key.device)
        bucket = (side.short() << bits.short()).sum(-1, dtype=torch.int16)
        return bucket, value.float().norm(dim=-1)
