"""Block-sparse attention of a context: tile by tile of queries, over the keys that a tile reads."""

# B batch, H query heads, G key-value heads, K positions of the context, D/V dimensions
# C query heads of a row: H / G if all heads read the same keys, else 1; R rows: B · H / C
# L some of the rows; #R and #L are 1 if all heads read the same keys
# T queries of a tile, P keys before its slice, S keys of its slice, N gathered keys
# X blocks of queries that a tile touches, M blocks of keys

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sah.attention.eviction.received import softmax_beside_sinks
from sah.attention.prefill.pattern import PrefillLayer, Reads

# Queries of a tile: fewer of them read fewer keys, with more each key takes less time.
_TILE = 128

# Rows are computed together, padded to the same number of keys, if they read this share of it.
_ALIKE = 0.75

# Approximate bytes of the keys, values and masks of rows that are computed together.
_TOGETHER = 2**28


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The attention output of a context in one layer."""

    output: Float[Tensor, "B H K V"]
    density: float
    """Share of the visible pairs of query and key that are read, the mean over heads."""


def attend(
    layer: PrefillLayer,
    value: Float[Tensor, "B G K V"],
    reads: Reads,
    *,
    sinks: Float[Tensor, " H"] | None = None,
) -> Computed:
    """Compute the attention of a context over the keys that each query reads.

    A tile of at most 128 queries gathers the keys that any of its queries reads, for each head
    where heads read different ones, and masks them for each query. Time falls with the number of
    keys that a tile reads. Memory is that of one tile's keys; nothing of size K × K is made.

    Computed by torch's sdpa in the dtype of the query; in float32 if scores are soft-capped or the
    model has attention sinks.

    Args:
        layer: queries and keys.
        value: of the keys.
        reads: what the queries read; fits the layer.
        sinks: logits of the model's own attention sinks (gpt-oss); in the denominator only.
    """
    batch, heads, length, _ = layer.query.shape
    work = _Work(layer, value, reads, sinks)
    size = _tile_size(reads)
    leading = length if reads.window >= length else reads.window // size * size
    if leading and layer.softcap is None and sinks is None:
        # The first queries read every key before them: one causal call, as in dense attention.
        work.output[:, :, :leading] = scaled_dot_product_attention(
            layer.query[:, :, :leading],
            layer.key[:, :, :leading],
            value[:, :, :leading],
            is_causal=True,
            scale=layer.scaling,
            enable_gqa=True,
        )
        work.pairs += batch * heads * leading * (leading + 1) // 2
    else:
        leading = 0
    split = max(leading, length - reads.last_queries)
    for begin, stop in ((leading, split), (split, length)):
        for start in range(begin, stop, size):
            work.compute(_Tile(start, min(stop, start + size), reads_all=begin == split))
    visible = batch * heads * length * (length + 1) / 2
    return Computed(output=work.output, density=float(work.pairs) / visible)


def _tile_size(reads: Reads) -> int:
    """Return the queries of a tile: those of a block or of a whole part of it, if possible."""
    block = reads.query_block
    if reads.blocks is None:
        return _TILE
    if block < _TILE // 2:
        return _TILE // 2 // block * block
    parts = math.ceil(block / _TILE)
    return block // parts if block % parts == 0 else _TILE // 2


_Rows = slice | Int[Tensor, " L"]
"""Numbers of rows; a slice of all of them if all heads read the same keys."""


@dataclass(frozen=True)
class _Tile:
    """Consecutive queries."""

    start: int
    """Position of the first query."""
    end: int
    """Position after the last one."""
    reads_all: bool
    """Whether each query reads every key before it."""


class _Work:
    """A layer at work: `output` and `pairs` fill up tile by tile.

    The keys that are in the window of any query of a tile are a slice that ends with the tile;
    those before the slice are gathered.
    """

    def __init__(
        self, layer: PrefillLayer, value: Tensor, reads: Reads, sinks: Tensor | None
    ) -> None:
        batch, heads, length, _ = layer.query.shape
        self.layer, self.reads, self.sinks = layer, reads, sinks
        parts = [part for part in (reads.columns, reads.blocks) if part is not None]
        self.is_shared = all(part.shape[:2] == (1, 1) for part in parts)
        """Whether all heads read the same keys."""
        self.per_row = layer.group_size if self.is_shared else 1
        self.key, self.value = layer.key, value
        if not self.is_shared:
            # Rows gather from one flat tensor; a cache has room after each head's keys.
            self.key, self.value = layer.key.contiguous(), value.contiguous()
        self.columns = None if reads.columns is None else self._in_rows(reads.columns)  # #R K
        self.blocks = None if reads.blocks is None else self._in_rows(reads.blocks)
        self.output = layer.query.new_empty(batch, heads, length, value.shape[-1])
        self.pairs = torch.zeros((), dtype=torch.long, device=layer.key.device)
        """Pairs of query and key that are read, in all heads."""

    def _in_rows(self, part: Tensor) -> Tensor:
        """Turn [#B, #H, ...] into [#R, ...]."""
        if not self.is_shared:
            part = part.expand(*self.layer.query.shape[:2], *part.shape[2:])
        return part.flatten(0, 1)

    def compute(self, tile: _Tile) -> None:
        """Compute the output of a tile, and count the pairs that it reads."""
        near = 0 if tile.reads_all else max(0, tile.start - self.reads.window + 1)
        query = self._tile_of(self.layer.query, tile)  # R C T D
        output = self._tile_of(self.output, tile)  # R C T V; a view
        heads = len(query) * self.per_row
        in_slice = self._slice_mask(tile, near)  # #R T S
        self.pairs += in_slice.sum() * (heads // len(in_slice))
        for rows, index, valid in self._batches(tile, near):
            count = index.shape[1]
            gathered = self._gathered_mask(tile, rows, index, valid)  # #L #T N
            read = gathered.sum() * ((tile.end - tile.start) // gathered.shape[1])
            self.pairs += read * (heads if self.is_shared else 1)
            beside = in_slice[rows] if len(in_slice) > 1 else in_slice  # #L T S
            bias = query.new_zeros(
                len(gathered), tile.end - tile.start, count + beside.shape[2]
            )  # #L T N+S
            if valid is not None or gathered.shape[1] > 1:
                bias[..., :count].masked_fill_(~gathered, -torch.inf)
            bias[..., count:].masked_fill_(~beside, -torch.inf)
            key, value = (
                self._held(part, rows, index, near, tile.end) for part in (self.key, self.value)
            )
            output[rows] = self._weighted(query[rows], key, value, bias, rows)

    def _tile_of(self, part: Tensor, tile: _Tile) -> Tensor:
        """Turn [B, H, K, ...] into [R, C, T, ...]."""
        rows = part[:, :, tile.start : tile.end].flatten(0, 1)
        return torch.unflatten(rows, 0, (-1, self.per_row))

    def _slice_mask(self, tile: _Tile, near: int) -> Bool[Tensor, "#R T S"]:
        """Return which keys of the slice each query reads."""
        keys = torch.arange(near, tile.end, device=self.layer.key.device)
        age = torch.arange(tile.start, tile.end, device=keys.device)[:, None] - keys  # T S
        if tile.reads_all:
            return (age >= 0).unsqueeze(0)
        chosen = self._chosen(tile, slice(None), keys.unsqueeze(0))
        return ((age < self.reads.window) | chosen) & (age >= 0)

    def _gathered_mask(
        self, tile: _Tile, rows: _Rows, index: Tensor, valid: Tensor | None
    ) -> Bool[Tensor, "#L #T N"]:
        """Return which of the gathered keys each query reads."""
        if self.blocks is not None and self._touched(tile).shape[1] > 1:
            read = self._chosen(tile, rows, index)
        else:
            read = torch.ones_like(index, dtype=torch.bool).unsqueeze(1)
        return read if valid is None else read & valid.unsqueeze(1)

    def _chosen(
        self, tile: _Tile, rows: _Rows, keys: Int[Tensor, "#L N"]
    ) -> Bool[Tensor, "#L #T N"]:
        """Return whether columns or blocks make each query read each key."""
        chosen = torch.zeros_like(keys, dtype=torch.bool).unsqueeze(1)
        if self.columns is not None:
            columns = self.columns[rows]
            chosen = columns.gather(1, keys.expand(len(columns), -1)).unsqueeze(1)
        if self.blocks is not None:
            blocks = self._touched(tile)[rows]  # #L X M
            at = (keys // self.reads.key_block).unsqueeze(1).expand(*blocks.shape[:2], -1)
            blocks = blocks.gather(2, at)  # #L X N
            if blocks.shape[1] > 1:
                position = torch.arange(tile.start, tile.end, device=keys.device)
                size = self.reads.query_block
                blocks = blocks[:, position // size - tile.start // size]
            chosen = chosen | blocks
        return chosen

    def _touched(self, tile: _Tile) -> Bool[Tensor, "#R X M"]:
        """Return the blocks that the blocks of queries of a tile read."""
        assert self.blocks is not None
        size = self.reads.query_block
        return self.blocks[:, tile.start // size : (tile.end - 1) // size + 1]

    def _before(self, tile: _Tile, near: int) -> Bool[Tensor, "#R P"]:
        """Return which keys before the slice any query of the tile reads."""
        found = torch.zeros(1, near, dtype=torch.bool, device=self.layer.key.device)
        if self.columns is not None:
            found = found | self.columns[:, :near]
        if self.blocks is not None:
            by_key = self._touched(tile).any(1).repeat_interleave(self.reads.key_block, 1)
            found = found | by_key[:, :near]
        return found

    def _batches(
        self, tile: _Tile, near: int
    ) -> Iterator[tuple[_Rows, Int[Tensor, "#L N"], Bool[Tensor, "#L N"] | None]]:
        """Divide the rows by the number of keys that they gather.

        Yields:
            Rows, the positions of the keys that they gather, and which of these are not padding;
            None if none is.
        """
        before = self._before(tile, near)
        if self.is_shared:
            yield slice(None), before[0].nonzero().view(1, -1), None
            return
        counts = before.sum(1)
        sizes: list[int] = counts.tolist()
        left = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
        in_slice, queries = tile.end - near, tile.end - tile.start
        row_bytes = (self.layer.key.shape[-1] + self.value.shape[-1]) * self.value.itemsize
        while left:
            most = sizes[left[0]]
            limit = _TOGETHER // ((most + in_slice) * (row_bytes + queries * 8))
            alike = [r for r in left if sizes[r] + in_slice >= _ALIKE * (most + in_slice)]
            taken = alike[: max(1, limit)]
            left = left[len(taken) :]
            rows = torch.tensor(taken, device=before.device)
            yield rows, *_padded(before[rows], counts[rows], most)

    def _held(
        self,
        part: Float[Tensor, "B G K E"],
        rows: _Rows,
        index: Int[Tensor, "#L N"],
        near: int,
        end: int,
    ) -> Float[Tensor, "L NS E"]:
        """Return the keys or values that each row gathers, and then those of the slice."""
        if isinstance(rows, slice):
            by_head = part.flatten(0, 1)
            if index.shape[1] == near:
                # All keys before the slice are read, in order: nothing is copied.
                return by_head[:, :end]
            gathered = by_head.index_select(1, index[0])
            return torch.cat([gathered, by_head[:, near:end]], dim=1)
        first = (rows // self.layer.group_size * self.layer.length)[:, None]
        in_slice = torch.arange(near, end, device=rows.device).expand(len(rows), -1)
        place = first + torch.cat([index, in_slice], dim=1)
        found = part.flatten(0, 2).index_select(0, place.flatten())
        return torch.unflatten(found, 0, place.shape)

    def _weighted(
        self,
        query: Float[Tensor, "L C T D"],
        key: Float[Tensor, "L N D"],
        value: Float[Tensor, "L N V"],
        bias: Float[Tensor, "#L T N"],
        rows: _Rows,
    ) -> Float[Tensor, "L C T V"]:
        """Compute softmax(q·k + bias) · v; the bias is -inf where a query does not read a key."""
        if self.layer.softcap is not None or self.sinks is not None:
            return self._weighted_in_float32(query, key, value, bias, rows)
        if self.per_row > 1:
            bias = bias.repeat(1, self.per_row, 1)
        output = scaled_dot_product_attention(
            query.flatten(1, 2).unsqueeze(0),  # 1 L C·T D
            key.unsqueeze(0),
            value.unsqueeze(0),
            attn_mask=bias.unsqueeze(0),
            scale=self.layer.scaling,
        )
        return torch.unflatten(output[0], 1, query.shape[1:3])

    def _weighted_in_float32(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, rows: _Rows
    ) -> Float[Tensor, "L C T V"]:
        """Compute the same with soft-capped scores and attention sinks, row by row."""
        heads = torch.arange(self.layer.query.shape[1], device=query.device)
        heads = heads.repeat(self.layer.query.shape[0]).view(-1, self.per_row)[rows]  # L C
        output = query.new_empty(*query.shape[:3], value.shape[-1])
        for row in range(len(query)):
            scores = query[row].float() @ key[row].float().T * self.layer.scaling  # C T N
            if self.layer.softcap is not None:
                scores = self.layer.softcap * torch.tanh(scores / self.layer.softcap)
            scores = scores + bias[min(row, len(bias) - 1)]
            sinks = None if self.sinks is None else self.sinks[heads[row]]
            share = softmax_beside_sinks(scores.unsqueeze(0), sinks)[0]
            output[row] = (share @ value[row].float()).to(output.dtype)
        return output


def _padded(
    chosen: Bool[Tensor, "L P"], counts: Int[Tensor, " L"], most: int
) -> tuple[Int[Tensor, "L N"], Bool[Tensor, "L N"]]:
    """Return the positions of each row's chosen keys, in order, and which are not padding."""
    row, position = chosen.nonzero().unbind(1)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=row.device) - first[row]
    index = torch.zeros(len(chosen), most, dtype=torch.long, device=row.device)
    index[row, place] = position
    return index, torch.arange(most, device=row.device) < counts[:, None]
