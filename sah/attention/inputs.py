"""Inputs of one attention call, as maskers see them."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension, V value dimension
# S rows of queries per key-value head: H / G · Q

from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.attention.gather import SelectedKeys
from sah.attention.index import Index, KeyIndex, index_of
from sah.attention.stacked.batch_rows import BatchRows
from sah.attention.visibility import Visibility
from sah.seeding import derive

# Number of half-precision keys or values that are converted to float32 at a time.
BLOCK_KEYS = 4096


@dataclass(frozen=True, kw_only=True)
class HeldSelection:
    """Keys that a masker selected at one decode step, for the steps that reuse them."""

    first_position: int
    """Position of the answer's first decode step, from which steps are counted."""
    keys: Bool[Tensor, "B H 1 K"]


@dataclass(frozen=True, kw_only=True)
class AttentionInputs:
    """Queries, keys and values of one layer after the rotary embedding.

    Keys and values are per key-value head; query head h reads key-value head
    h // (H / G), as in transformers.
    """

    query: Float[Tensor, "B H Q D"]
    key: Float[Tensor, "B G K D"]
    value: Float[Tensor, "B G K V"]
    visibility: Visibility
    scaling: float
    softcap: float | None = None
    """Scores s become softcap * tanh(s / softcap) (Gemma 2)."""
    sinks: Float[Tensor, " H"] | None = None
    """Logits of the model's own attention sinks (gpt-oss); in the denominator only."""
    layer_idx: int = 0
    first_position: int = 0
    """Position of query 0 in the sequence."""
    later_queries: int = 0
    """Queries of the same forward pass that come later, where each is computed on its own because
    keys are evicted in between; `key` ends before theirs."""
    context_length: int = 0
    """Keys of the context; later keys are dropped after the answer."""
    seed: int = 0
    """Derived from the experiment's seed, the example and the layer."""
    index_seed: int = 0
    """Derived from the experiment's seed and the layer; for indexes, which outlive an example."""
    indexes: dict[Hashable, KeyIndex] = field(default_factory=dict)
    """The layer's key indexes by masker; the session keeps them between calls."""
    kept: KeptKeys | None = None
    """What the layer keeps of the context, if keys were evicted: `key` and `value` then begin with
    the kept rows, and positions count rows. `visible` is false in rows that pad a head."""
    indexed: Bool[Tensor, "#B #H Q K"] | None = None
    """Keys that the model's own indexer selects; None unless it is on."""
    held: MutableMapping[Hashable, HeldSelection] | None = None
    """Selections by masker that later decode steps reuse; None while a question is read."""
    rows: BatchRows | None = None
    """Set where sequences of different lengths are decoded together. `first_position`,
    `context_length`, `seed` and `kept` then say nothing; only maskers that are `batched` get such
    inputs."""

    @property
    def query_position(self) -> Int[Tensor, "#B Q"]:
        """Position of each query."""
        if self.rows is not None:
            return self.rows.lengths.last()
        position = torch.arange(self.query.shape[2], device=self.query.device)
        return (position + self.first_position).unsqueeze(0)

    @property
    def group_size(self) -> int:
        """Query heads per key-value head, H / G."""
        return self.query.shape[1] // self.key.shape[1]

    @cached_property
    def dot_products(self) -> Float[Tensor, "B H Q K"]:
        """q·k in float32 for all keys, invisible ones too; computed once."""
        return self.dot(self.query, self.key)

    @cached_property
    def scores(self) -> Float[Tensor, "B H Q K"]:
        """Exact attention logits in float32: q·k·scaling, soft-capped; computed once.

        Invisible keys have scores too; callers apply `visible`.
        """
        return self.logits_of(self.dot_products)

    def dot_products_at(self, keys: SelectedKeys) -> Float[Tensor, "B H Q N"]:
        """Return q·k in float32 of the selected keys; a single query reads no other key."""
        # Several queries read most keys between them: one large matrix product is faster.
        if self.query.shape[2] > 1 or "dot_products" in vars(self):
            return self.dot_products.gather(-1, keys.position)
        return keys.products(self.query, self.key)

    def scores_at(self, keys: SelectedKeys) -> Float[Tensor, "B H Q N"]:
        """Return `scores` of the selected keys."""
        return self.logits_of(self.dot_products_at(keys))

    def logits_of(self, products: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the attention logits of products q·k: scaled, soft-capped."""
        scores = products * self.scaling
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return scores

    def dot(
        self, query: Float[Tensor, "B H Q E"], key: Float[Tensor, "B G N E"]
    ) -> Float[Tensor, "B H Q N"]:
        """Return float32 dot products of each query with N vectors of its key-value head.

        The queries of a key-value head are stacked, so that keys are not copied per query head.
        Keys of another dtype are converted one block at a time.
        """
        batch, heads, queries, dim = query.shape
        groups, count = key.shape[1:3]
        stacked = query.float().reshape(batch, groups, heads // groups * queries, dim)  # B G S E
        if key.dtype == torch.float32:
            products = stacked @ key.transpose(-1, -2)
        else:
            products = stacked.new_empty(*stacked.shape[:3], count)
            for start in range(0, count, BLOCK_KEYS):
                block = key[:, :, start : start + BLOCK_KEYS].float()
                products[..., start : start + BLOCK_KEYS] = stacked @ block.transpose(-1, -2)
        return products.view(batch, heads, queries, count)

    def grouped(self, per_head: Shaped[Tensor, "B H Q *rest"]) -> Shaped[Tensor, "B G S *rest"]:
        """Stack the query heads of each key-value head: S = H / G · Q rows per group."""
        batch, groups = self.key.shape[:2]
        return per_head.reshape(batch, groups, -1, *per_head.shape[3:])

    def per_head(self, grouped: Shaped[Tensor, "B G S *rest"]) -> Shaped[Tensor, "B H Q *rest"]:
        """Undo `grouped`."""
        batch, heads, queries = self.query.shape[:3]
        return grouped.reshape(batch, heads, queries, *grouped.shape[3:])

    @property
    def visible(self) -> Bool[Tensor, "#B #H Q K"]:
        """Keys that each query may read: causal and not padding."""
        return self.visibility.keys

    @property
    def visible_count(self) -> Int[Tensor, "#B #H Q 1"]:
        """Number of keys that each query may read."""
        return self.visibility.count

    @property
    def sequence_count(self) -> Int[Tensor, "#B 1 Q 1"]:
        """Number of keys that each query could read if none had been evicted."""
        if self.rows is not None:
            return self.rows.sequence_count()
        if self.kept is None:
            return self.visible_count
        first = self.first_position + self.kept.dropped
        count = torch.arange(self.query.shape[2], device=self.key.device) + (first + 1)
        return count.view(1, 1, -1, 1)

    @property
    def visible_rank(self) -> Int[Tensor, "#B #H Q K"]:
        """1 for each query's first visible key, 2 for the second, and so on."""
        return self.visibility.rank

    def uniform(self) -> Float[Tensor, "B H Q K"]:
        """Draw one number in [0, 1) per query, head and key, regardless of query chunking.

        Each query has its own generator, seeded by (seed, example, layer, position); a second
        call continues its sequence.
        """
        heads, keys = self.query.shape[1], self.key.shape[2]
        if self.rows is not None:
            return self._uniform_of_rows(self.rows)
        noise = [
            torch.rand(heads, keys, generator=generator, device=self.query.device)
            for generators in self._generators
            for generator in generators
        ]
        if len(noise) == 1:
            return noise[0].view(1, heads, 1, keys)
        batch, _, queries, _ = self.query.shape
        return torch.stack(noise).view(batch, queries, heads, keys).transpose(1, 2)

    def _uniform_of_rows(self, rows: BatchRows) -> Float[Tensor, "B H 1 K"]:
        """Draw for each row what it draws alone; 0 beyond its end."""
        batch, heads, queries, _ = self.query.shape
        noise = self.query.new_zeros(batch, heads, queries, self.key.shape[2], dtype=torch.float32)
        for number, (keys, (generator,)) in enumerate(
            zip(rows.lengths.keys, self._generators, strict=True)
        ):
            torch.rand(heads, keys, generator=generator, out=noise[number, :, 0, :keys])
        return noise

    @cached_property
    def _generators(self) -> list[list[torch.Generator]]:
        if self.rows is not None:
            return [
                [torch.Generator(self.query.device).manual_seed(derive(seed, 0, keys - 1))]
                for seed, keys in zip(self.rows.seeds, self.rows.lengths.keys, strict=True)
            ]
        batch, queries = self.query.shape[0], self.query.shape[2]
        return [
            [
                torch.Generator(self.query.device).manual_seed(
                    derive(self.seed, row, self.first_position + column)
                )
                for column in range(queries)
            ]
            for row in range(batch)
        ]

    def index(self, owner: Hashable, build: Callable[[Tensor, Tensor], Index]) -> Index:
        """Return the owner's index over all K keys.

        Built from the keys and values of the context on first use and appended to as the
        sequence grows; the session rewinds it to the context after each answer. Without a
        context it is built from all keys of the first call, so that `build` never gets an empty
        tensor. Equal owners share one index.
        """
        if self.rows is not None:
            return cast(Index, self.rows.index(owner, build))
        return index_of(self.indexes, owner, build, self.key, self.value, self.context_length)

    def at_queries(self, start: int, end: int) -> "AttentionInputs":
        """Return the inputs of the queries from `start` to `end`, without copies.

        Scores that have been computed are not computed again.
        """
        part = replace(
            self,
            query=self.query[:, :, start:end],
            visibility=Visibility(self.visible[:, :, start:end]),
            indexed=None if self.indexed is None else self.indexed[:, :, start:end],
            first_position=self.first_position + start,
        )
        for name in ("dot_products", "scores"):
            if name in vars(self):
                vars(part)[name] = vars(self)[name][:, :, start:end]
        return part

    def row(self, number: int) -> "AttentionInputs":
        """Return the inputs of one row of a batch, without copies.

        Scores that have been computed are not computed again.
        """
        rows = self.rows
        assert rows is not None
        this, keys = slice(number, number + 1), rows.lengths.keys[number]
        part = replace(
            self,
            query=self.query[this],
            key=self.key[this, :, :keys],
            value=self.value[this, :, :keys],
            visibility=Visibility(self.visible[this, ..., :keys]),
            first_position=keys - 1,
            context_length=rows.context_rows[number],
            seed=rows.seeds[number],
            kept=rows.kept[number],
            rows=None,
        )
        for name in ("dot_products", "scores"):
            if name in vars(self):
                vars(part)[name] = vars(self)[name][this, ..., :keys]
        return part

    def chunks(self, queries: int) -> "list[AttentionInputs]":
        """Split into consecutive chunks of at most `queries` queries each."""
        total = self.query.shape[2]
        if queries >= total:
            return [self]
        return [
            self.at_queries(start, min(total, start + queries))
            for start in range(0, total, queries)
        ]
