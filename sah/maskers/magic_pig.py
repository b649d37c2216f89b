"""Keys sampled by locality-sensitive hashing, with known inclusion probabilities."""

# B batch, H query heads, G key-value heads, Q queries, S query rows per group, K keys
# N hashed keys: those of the context
# D head dimension, L tables, P planes per table, C bucket limits: 2^P + 1

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sah.attention import AttentionInputs, AttentionMask, SelectedKeys, host
from sah.attention.index import encode_in_chunks, rows_kept
from sah.attention.stacked.row_lengths import RowLengths
from sah.maskers.shared.hyperplanes import Hyperplanes


@dataclass(frozen=True, kw_only=True)
class MagicPIG:
    """Add the candidates that share enough hash buckets with the query (arXiv:2410.16179).

    Each of `tables` tables hashes queries and centred keys with `planes` random hyperplanes; a
    key is sampled if it is in the query's bucket in at least `min_collisions` tables. At an angle
    θ one table collides with probability P = (1 - θ/π)^planes, so that the key is included with
    probability p = 1 - Σ_{i < min_collisions} C(L, i)·P^i·(1 - P)^(L - i) and weighs 1/p, at most
    `max_weight`. Keys after the context are not hashed but read exactly. There is no budget: the
    number of keys depends on the angles. Put Sink and Local first, as the preset does: a query
    without collisions reads no other key of the context.

    Deviations from the authors' code. Keys are centred by the mean of all context keys; the
    authors hash the keys between sink and window only, and take their mean. With `max_weight` of
    1e4 weights are 1/max(p, 1e-4), unbiased from p = 1e-4 on; theirs are 1/(p + 1e-4). The
    question belongs to their prefill and is hashed; here it comes after the context.
    """

    batched: ClassVar[bool] = True

    planes: int = 10
    """Hyperplanes per table, from 1 to 15 (K in the paper)."""
    tables: int = 150
    """Hash tables (L in the paper)."""
    min_collisions: int = 2
    """Minimum number of tables in which query and key collide."""
    centre: bool = True
    """Subtract the mean of the context's keys from all keys before hashing."""
    max_weight: float = 1e4
    """Largest weight of a key, at least 1; smaller inclusion probabilities are biased."""

    def __post_init__(self) -> None:
        if not 1 <= self.planes <= 15:
            raise ValueError(f"MagicPIG: planes must be from 1 to 15, got {self.planes}")
        if self.tables < 1:
            raise ValueError(f"MagicPIG: tables must be at least 1, got {self.tables}")
        if not 1 <= self.min_collisions <= self.tables:
            raise ValueError(
                f"MagicPIG: min_collisions must be from 1 to tables={self.tables}, "
                f"got {self.min_collisions}"
            )
        if not self.max_weight >= 1:
            raise ValueError(f"MagicPIG: max_weight must be at least 1, got {self.max_weight}")

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        tables = inputs.index(
            self, lambda key, value: HashTables(self, key, value, inputs.index_seed)
        )
        mask = mask.add(tables.are_later(inputs.key.shape[2]))
        collisions = inputs.per_head(tables.collisions(inputs.grouped(inputs.query.float())))
        hashed = collisions.shape[-1]
        later = inputs.key.shape[2] - hashed
        sampled = pad(collisions >= self.min_collisions, (0, later))  # B H Q K
        if not host.holds(sampled):
            # Of every key, because the host does not know how many are sampled.
            norms = tables.norms.unsqueeze(2).expand_as(inputs.grouped(collisions))
            products = inputs.dot_products[..., :hashed]
            weight = self._weight(inputs, tables, products, inputs.per_head(norms))
            return mask.add(sampled, pad(weight, (0, later), value=1.0))
        keys = SelectedKeys.of(sampled, sampled.sum(-1))
        if keys.position.shape[-1] == 0:
            return mask
        grouped = inputs.grouped(keys.position)
        norms = tables.norms.unsqueeze(2).expand(*grouped.shape[:3], -1).gather(-1, grouped)
        products = inputs.dot_products_at(keys)
        weight = self._weight(inputs, tables, products, inputs.per_head(norms))
        weights = torch.ones(sampled.shape, device=weight.device)
        return mask.add(sampled, weights.masked_scatter_(sampled, weight[keys.valid]))

    def _weight(
        self,
        inputs: AttentionInputs,
        tables: "HashTables",
        products: Float[Tensor, "B H Q some"],
        norms: Float[Tensor, "B H Q some"],
    ) -> Float[Tensor, "B H Q some"]:
        """Return the weight of some keys, given q·k and the norms of the centred keys."""
        query = inputs.query.float()
        centred = products - inputs.dot(query, tables.mean)  # q·(k - mean)
        lengths = query.norm(dim=-1, keepdim=True) * norms
        # In float64, because a small probability is the difference of two numbers near 1.
        cosine = centred.double() / lengths.clamp(min=1e-30)
        probability = self.inclusion_probability(cosine.clamp(-1, 1).acos())
        return (1 / probability.clamp(min=1 / self.max_weight)).float()

    def inclusion_probability(self, angle: Tensor) -> Tensor:
        """Return the probability of sampling a key at this angle (radians, float64)."""
        one_table = (1 - angle / math.pi) ** self.planes
        missed = torch.zeros_like(one_table)
        for collisions in range(self.min_collisions):
            ways = math.comb(self.tables, collisions)
            missed += ways * one_table**collisions * (1 - one_table) ** (self.tables - collisions)
        return 1 - missed


# Number of keys that are hashed, and of query rows that are looked up, at a time.
_CHUNK_KEYS = 1024
_CHUNK_ROWS = 16
# Number of codes that are compared at a time, one byte each.
_CHUNK_COMPARISONS = 2**26


class HashTables:
    """Hash tables of the context's keys, and their norms. Later keys are only counted.

    On the CPU they hold the keys of each table sorted by bucket, four bytes per key and table, and
    the start of each bucket: a query reads its own buckets only. How many keys these have would
    have to be read from a device, so that elsewhere the tables hold the bucket of each key, two
    bytes per key and table, and a query compares its buckets with all of them.
    """

    def __init__(
        self,
        settings: MagicPIG,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        tables, planes = settings.tables, settings.planes
        self.hyperplanes = Hyperplanes(key, tables=tables, planes=planes, seed=seed)
        mean = key.float().mean(2, keepdim=True)
        self.mean: Float[Tensor, "B G 1 D"] = mean if settings.centre else torch.zeros_like(mean)
        codes, self.norms = encode_in_chunks(self._encode, key, value, chunk_keys=_CHUNK_KEYS)
        self.hashed = self.length = key.shape[2]
        self._codes: Int[Tensor, "B G L N"] | None = None
        if not host.holds(codes):
            self._codes = codes.contiguous()
            return
        # Per table: the keys sorted by bucket, and the start of each bucket among them.
        in_order, order = codes.contiguous().sort(dim=-1, stable=True)
        self._order: Int[Tensor, "B G L N"] = order.int()
        # A bucket starts where the previous one ends; the number after the last, up to 2^15,
        # would not fit into int16.
        bucket = torch.arange(2**planes, device=key.device).short()
        ends = torch.searchsorted(
            in_order, bucket.expand(*in_order.shape[:3], -1).contiguous(), right=True
        )
        self._starts: Int[Tensor, "B G L C"] = pad(ends, (1, 0)).int()

    @property
    def nbytes(self) -> int:
        """Memory of tables, norms, planes and mean, in bytes."""
        buckets = (self._order, self._starts) if self._codes is None else (self._codes,)
        tensors = (*buckets, self.norms, self.hyperplanes.normals, self.mean)
        return sum(tensor.nbytes for tensor in tensors)

    def append(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> None:
        """Count keys after the context."""
        self.length += key.shape[2]

    def rewind(self, length: int) -> None:
        """Forget every key from position `length` on."""
        assert length >= self.hashed, "the tables hold the whole context"
        self.length = min(self.length, length)

    @classmethod
    def side_by_side(
        cls, indexes: Iterable["HashTables"], lengths: RowLengths, room: int
    ) -> "HashTablesOfRows":
        """Put the tables of a batch's rows into one index."""
        return HashTablesOfRows([copy.copy(index) for index in indexes], lengths)

    def are_later(self, keys: int) -> Bool[Tensor, "#B 1 1 K"]:
        """Return which of the first `keys` keys are not hashed, since they follow the context."""
        position = torch.arange(keys, device=self.norms.device)
        return (position >= self.hashed).view(1, 1, 1, -1)

    def collisions(self, query: Float[Tensor, "B G S D"]) -> Int[Tensor, "B G S N"]:
        """Count the tables in which query and hashed key are in the same bucket."""
        parts = []
        for start in range(0, query.shape[2], _CHUNK_ROWS):
            codes = self.hyperplanes.buckets(query[:, :, start : start + _CHUNK_ROWS])
            parts.append(
                self._in_tables(codes) if self._codes is None else _equal(codes, self._codes)
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int[Tensor, "B G L N"], Float[Tensor, "B G N"]]:
        centred = key.float() - self.mean
        return self.hyperplanes.buckets(centred).transpose(2, 3), centred.norm(dim=-1)

    def _in_tables(self, codes: Int[Tensor, "B G S L"]) -> Int[Tensor, "B G S N"]:
        """Count collisions by reading only the queries' buckets."""
        batch, groups, rows, tables = codes.shape
        bucket = codes.transpose(2, 3).long()  # B G L S
        first = self._starts.gather(-1, bucket).flatten()  # B·G·L·S
        hits = self._starts.gather(-1, bucket + 1).flatten() - first
        # For each of the B·G·L·S buckets read: its table, and the first count of its query's row.
        number = torch.arange(len(hits), device=codes.device)
        table = number // rows
        row_start = (table // tables * rows + number % rows) * self.hashed
        # For each hit: the bucket it is in, and its entry in the flattened tables.
        bucket_of_hit = torch.repeat_interleave(hits)
        before = hits.cumsum(0) - hits  # hits in earlier buckets
        entry = (table * self.hashed + first - before)[bucket_of_hit]
        entry += torch.arange(len(bucket_of_hit), device=codes.device)
        cell = row_start[bucket_of_hit] + self._order.flatten()[entry]
        counts = torch.bincount(cell, minlength=batch * groups * rows * self.hashed)
        return counts.view(batch, groups, rows, self.hashed)


class HashTablesOfRows(HashTables):
    """The tables of each row of a batch, padded to the longest context."""

    def __init__(self, rows: Sequence[HashTables], lengths: RowLengths) -> None:
        """Copy the tables of each row."""
        first = rows[0]
        self.hyperplanes = first.hyperplanes  # equal in all, since the seed is that of the layer
        self._rows, self._lengths, self.length = list(rows), lengths, lengths.longest
        self.hashed = max(row.hashed for row in rows)
        self.norms, self.mean = self._padded("norms"), torch.cat([row.mean for row in rows])
        self._codes = None if first._codes is None else self._padded("_codes", -1)
        if self._codes is None:
            self._order = self._padded("_order")
            self._starts = torch.cat([row._starts for row in rows])
        self._place()

    def are_later(self, keys: int) -> Bool[Tensor, "B 1 1 K"]:
        """Return which of the first `keys` keys of each row are not hashed."""
        position = torch.arange(keys, device=self.norms.device)
        return position >= self._hashed

    def rewind(self, length: int) -> None:
        """Refuse; rows side by side grow only."""
        raise NotImplementedError("the indexes of a batch's rows grow only")

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Continue with some rows, as in `RowsIndex`."""
        for source, target in moves:
            self._rows[target] = self._rows[source]
        del self._rows[rows:]
        self.hashed = max(row.hashed for row in self._rows)
        for name in ("norms", "mean", "_codes", "_order", "_starts"):
            tensor = getattr(self, name, None)
            if tensor is None:
                continue
            tensor = rows_kept(tensor, moves, rows)
            if name in ("norms", "_codes", "_order"):
                tensor = tensor[..., : self.hashed].contiguous()
            setattr(self, name, tensor)
        self._place()

    def row(self, number: int) -> HashTables:
        """Return the index of one row, as in `RowsIndex`."""
        one = copy.copy(self._rows[number])
        one.length = self._lengths.keys[number]
        return one

    def _padded(self, name: str, value: int = 0) -> Tensor:
        parts = [getattr(row, name) for row in self._rows]
        return torch.cat(
            [pad(part, (0, self.hashed - part.shape[-1]), value=value) for part in parts]
        )

    def _place(self) -> None:
        hashed = [row.hashed for row in self._rows]
        self._hashed = torch.tensor(hashed, device=self.norms.device).view(-1, 1, 1, 1)


def _equal(query: Int[Tensor, "B G S L"], keys: Int[Tensor, "B G L N"]) -> Int[Tensor, "B G S N"]:
    """Count the tables in which queries and keys have equal codes, some tables at a time."""
    query = query.unsqueeze(-1)  # B G S L 1
    per_table = query.shape[:3].numel() * keys.shape[-1]
    shape = (*query.shape[:3], keys.shape[-1])
    count = torch.zeros(shape, dtype=torch.int32, device=keys.device)
    at_once = max(1, _CHUNK_COMPARISONS // per_table)
    for mine, theirs in zip(query.split(at_once, dim=3), keys.split(at_once, dim=2), strict=True):
        count += (mine == theirs.unsqueeze(2)).sum(3, dtype=count.dtype)
    return count
