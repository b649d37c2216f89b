"""Keys ranked by soft hash collisions."""

# B batch, H query heads, G key-value heads, Q queries, S query rows per group
# K keys, N keys to encode, D head dimension, L tables, P planes per table, C corners: 2^P
# M key-value heads of all rows of the batch: B·G

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker, host
from sah.attention.index import encode_in_chunks
from sah.maskers.shared.hyperplanes import Hyperplanes
from sah.maskers.shared.lookup import LookUpPlaces, sum_of_looked_up_rows


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

    batched: ClassVar[bool] = True

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
        buckets, value_norms = index.codes  # B G K L, B G K
        # A few queries at a time, because their probabilities take S · L · 2^P numbers.
        queries = inputs.grouped(inputs.query).float().split(_QUERIES_AT_ONCE, dim=2)
        parts = [self._collisions(inputs, index, some, buckets) for some in queries]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        if self.weigh_by_value:
            scores = scores * value_norms.unsqueeze(2)
        return inputs.per_head(scores)

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "B H Q K"]
    ) -> Float[Tensor, "B H Q K"]:
        # A score estimates a share of attention: the softmax of its logarithm normalises it.
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()

    def _collisions(
        self,
        inputs: AttentionInputs,
        index: "HashedKeys",
        query: Float[Tensor, "B G S D"],
        buckets: Int[Tensor, "B G K L"],
    ) -> Float[Tensor, "B G S K"]:
        """Sum, over the tables, each query's probability of each key's bucket."""
        low, high = self._half_probabilities(query, index)
        keys = buckets.shape[2]
        buckets = buckets.reshape(-1, keys, self.tables)  # M K L
        count = buckets.shape[0]
        some = self._heads_at_once(count, keys, query)
        places = inputs.visibility.cached(
            ("places", some, self.tables, keys),
            lambda: LookUpPlaces.of(some, self.tables, keys, query.device),
        )
        sums = [
            # Bit p of a bucket's number is the side of plane p, so that the first planes vary
            # fastest.
            sum_of_looked_up_rows(
                (last.unsqueeze(1) * first).view(-1, *first.shape[1:]), codes, places
            )
            for first, last, codes in zip(
                low.split(some, dim=1), high.split(some, dim=1), buckets.split(some), strict=True
            )
        ]
        collisions: Tensor = torch.cat([part.transpose(1, 2) for part in sums])
        return collisions.view(*query.shape[:3], keys)

    def _heads_at_once(self, count: int, keys: int, query: Float[Tensor, "B G S D"]) -> int:
        """Return how many of `count` key-value heads, of all rows, share a look-up.

        On the CPU the tables must stay in the cache between being written and being read: at
        eight rows of 4,096 keys, one look-up for all 24 heads takes six times as long as six
        look-ups for four heads each.
        More than 16 look-ups would cost more operations than they save.
        """
        each = 4 * self.tables * ((1 << self.planes) * query.shape[2] + keys)  # bytes
        workspace = _CPU_WORKSPACE if host.holds(query) else _WORKSPACE
        return min(count, max(workspace // each, -(-count // _MOST_LOOK_UPS), 1))

    def _half_probabilities(
        self, query: Float[Tensor, "B G S D"], index: "HashedKeys"
    ) -> tuple[Float[Tensor, "C1 M L S"], Float[Tensor, "C2 M L S"]]:
        """Return the probabilities of the corners of the first planes, and of the others.

        The softmax over all corners is the product of the two.
        """
        signs = torch.tanh_(query.reshape(-1, *query.shape[2:]) @ index.hyperplanes.normals)
        signs = signs.view(*signs.shape[:2], self.tables, self.planes)  # M S L P
        signs = signs.permute(3, 0, 2, 1)  # P M L S
        logits = torch.addmm(index.absent, index.corners, signs.reshape(self.planes, -1))
        halves = torch.softmax(logits.view(2, -1, *signs.shape[1:]), dim=1)
        return halves[0, : 2 ** (self.planes // 2)], halves[1]


_QUERIES_AT_ONCE = 16
_CHUNK_KEYS = 1024
# Bytes of the tables of one look-up, and of the rows that its keys look up.
_CPU_WORKSPACE = 2**23
_WORKSPACE = 2**28
_MOST_LOOK_UPS = 16


def _corners(planes: int, device: torch.device) -> Float[Tensor, "C P"]:
    """Return all sign vectors as rows; bit p of b gives the sign of plane p in row b."""
    bucket = torch.arange(2**planes, device=device)
    plane = torch.arange(planes, device=device)
    return (bucket[:, None] >> plane & 1) * 2.0 - 1


class HashedKeys(EncodedKeys):
    """Bucket of every key in every table, two bytes each, and norms of the values."""

    row_tensors = ()

    def __init__(
        self,
        settings: SOCKET,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        tables, planes = settings.tables, settings.planes
        self.hyperplanes = Hyperplanes(key, tables=tables, planes=planes, seed=seed)
        # First the corners of the first planes, then those of the others, which may be one more.
        half, larger = planes // 2, 2 ** (planes - planes // 2)
        corners = torch.zeros(2 * larger, planes, device=key.device)
        corners[: 2**half, :half] = _corners(half, key.device)
        corners[larger:, half:] = _corners(planes - half, key.device)
        self.corners = corners / (settings.tau * key.shape[-1] ** 0.5)
        """Sign vectors of both halves, divided by tau · √D."""
        self.absent = torch.zeros(2 * larger, 1, device=key.device)
        """Minus infinity for the corners that the first half does not have, else 0."""
        self.absent[2**half : larger] = -torch.inf
        super().__init__(None, key, value, dim=2)

    @property
    def nbytes(self) -> int:
        """Memory of buckets, norms and planes, in bytes."""
        return super().nbytes + self.hyperplanes.normals.nbytes

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> list[Tensor]:
        """Return buckets, [B, G, N, L], and norms, [B, G, N]."""
        return encode_in_chunks(self._hash_chunk, key, value, chunk_keys=_CHUNK_KEYS, dim=2)

    def _hash_chunk(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int[Tensor, "B G N L"], Float[Tensor, "B G N"]]:
        return self.hyperplanes.buckets(key.float()), value.float().norm(dim=-1)
