"""Density, rows read and keys read of an example, counted on the device while it is answered."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N queries of several calls

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from sah.attention.eviction.kept import KeptKeys
from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask


@dataclass(frozen=True, kw_only=True)
class KeysRead:
    """What the queries of one example read: means over layers, heads and queries.

    A query counts once in each layer that attends to every earlier token, and all of these have
    equal weights. In a layer that is kept dense it reads all visible keys.
    """

    density: float
    """Share of the visible keys that a query head selects."""
    rows_read: float
    """Share of the visible key-value rows that any query head of a group selects."""
    sparse_queries: int
    """Queries in sparse layers."""
    dense_queries: int
    """Queries in layers that are kept dense."""
    keys: float
    """Keys that a query head selects in one layer, summed over the queries: the mean over query
    heads, and over the layers that count."""

    @property
    def queries(self) -> int:
        """Queries in all layers that count."""
        return self.sparse_queries + self.dense_queries

    def with_dense_layers(self, mean: float | None, *, dense: float) -> float | None:
        """Extend a mean over the sparse layers to all that count, given its value in dense ones."""
        if mean is None:
            return None
        return (mean * self.sparse_queries + dense * self.dense_queries) / self.queries


class _Kind(NamedTuple):
    """Calls whose counts can be put together."""

    device: torch.device
    batch: int
    heads: int
    groups: int
    is_summed: bool


class ReadCounter:
    """Counts what queries read; nothing waits for the device before `total`."""

    def __init__(self) -> None:
        self._sparse: dict[_Kind, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._dense_queries = 0
        self._kept_queries = 0
        self._kept_share = 0.0
        self._kept_keys = 0.0
        self._dense_keys = 0
        self._layers: set[int] = set()

    def add(self, inputs: AttentionInputs, mask: AttentionMask) -> None:
        """Count one call of a sparse layer."""
        batch, heads, queries, _ = inputs.query.shape
        groups = inputs.key.shape[1]
        counts = mask.selected_count, mask.rows_read(groups)  # B H Q, B G Q
        if queries > 1:
            # A decode step waits for its sums until `total`; a question would take too much memory.
            counts = counts[0].sum(1, keepdim=True), counts[1].sum(1, keepdim=True)
        kind = _Kind(inputs.query.device, batch, heads, groups, queries > 1)
        # The visible keys are shared by all layers of the step, B 1 Q 1.
        self._sparse.setdefault(kind, []).append((*counts, inputs.sequence_count))
        self._layers.add(inputs.layer_idx)

    def add_counts(
        self,
        layers: Iterable[int],
        *,
        heads: int,
        groups: int,
        selected: Int[Tensor, " N"],
        read: Int[Tensor, " N"],
        visible: Int[Tensor, " N"],
    ) -> None:
        """Count N queries of sparse layers, each with its sums over heads.

        Args:
            layers: their numbers.
            heads: query heads.
            groups: key-value heads.
            selected: keys that the query heads select.
            read: key-value rows that they read together.
            visible: keys that the query could read.
        """
        kind = _Kind(selected.device, 1, heads, groups, True)
        counts = selected.view(1, 1, -1), read.view(1, 1, -1), visible.view(1, 1, -1, 1)
        self._sparse.setdefault(kind, []).append(counts)
        self._layers.update(layers)

    def add_all_kept(self, layer: int, kept: KeptKeys | None, *, queries: int, keys: int) -> None:
        """Count queries of a layer that read all the rows that it holds, at the last positions.

        Known without asking the device. Heads that keep different numbers count by their mean.

        Args:
            layer: its number.
            kept: what it keeps of the context.
            queries: number of queries.
            keys: rows of the layer, those of the queries included.
        """
        rows, per_head, length = (
            (0, 0.0, 0) if kept is None else (kept.rows, kept.per_head, kept.key.shape[2])
        )
        first = keys - queries - rows + 1
        for after in range(first, first + queries):
            self._kept_share += (per_head + after) / (length + after)
            self._kept_keys += per_head + after
        self._kept_queries += queries
        self._layers.add(layer)

    def add_dense(self, layer: int, *, batch: int, queries: int, keys: int) -> None:
        """Count one call of a layer that is kept dense; its queries are at the last positions."""
        self._dense_queries += batch * queries
        self._dense_keys += batch * visible_keys(keys - queries, queries)
        self._layers.add(layer)

    @property
    def is_sparse(self) -> bool:
        """Whether any call was sparse."""
        return bool(self._sparse) or self._kept_queries > 0

    def total(self) -> KeysRead | None:
        """Return the means so far; None without any query."""
        density = rows = self._dense_queries + self._kept_share
        keys = self._dense_keys + self._kept_keys
        sparse_queries = self._kept_queries
        for kind, calls in self._sparse.items():
            selected, read, visible = (
                torch.cat(parts, dim=2).sum(1).cpu().double().flatten()
                for parts in zip(*calls, strict=True)
            )  # B·N
            # Padding: a query that sees no key does not count.
            real = visible > 0
            sparse_queries += int(real.sum())
            density += float((selected[real] / visible[real]).sum()) / kind.heads
            rows += float((read[real] / visible[real]).sum()) / kind.groups
            keys += float(selected.sum()) / kind.heads
        queries = sparse_queries + self._dense_queries
        if queries == 0:
            return None
        return KeysRead(
            density=density / queries,
            rows_read=rows / queries,
            sparse_queries=sparse_queries,
            dense_queries=self._dense_queries,
            keys=keys / len(self._layers),
        )


def visible_keys(before: int, queries: int) -> int:
    """Return the number of keys that consecutive queries see together, after `before` tokens."""
    return queries * before + queries * (queries + 1) // 2
