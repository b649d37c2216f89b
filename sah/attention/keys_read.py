"""Density and rows read of an example, counted on the device while it is answered."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N queries of several calls

from dataclasses import dataclass

import torch
from torch import Tensor

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

    @property
    def queries(self) -> int:
        """Queries in all layers that count."""
        return self.sparse_queries + self.dense_queries

    def with_dense_layers(self, mean: float | None, *, dense: float) -> float | None:
        """Extend a mean over the sparse layers to all that count, given its value in dense ones."""
        if mean is None:
            return None
        return (mean * self.sparse_queries + dense * self.dense_queries) / self.queries


class ReadCounter:
    """Counts what queries read; nothing waits for the device before `total`."""

    def __init__(self) -> None:
        self._sparse: dict[tuple[torch.device, int, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._dense_queries = 0

    def add(self, inputs: AttentionInputs, mask: AttentionMask) -> None:
        """Count one call of a sparse layer."""
        heads, groups = inputs.query.shape[1], inputs.key.shape[1]
        counts = (
            mask.selected_count.sum(1),  # B Q
            mask.rows_read(groups).sum(1),  # B Q
            inputs.visible_count[:, 0, :, 0],  # B Q; shared by all layers of the step
        )
        self._sparse.setdefault((inputs.query.device, heads, groups), []).append(counts)

    def add_dense(self, queries: int) -> None:
        """Count one call of a layer that is kept dense."""
        self._dense_queries += queries

    @property
    def is_sparse(self) -> bool:
        """Whether any call was sparse."""
        return bool(self._sparse)

    def total(self) -> KeysRead | None:
        """Return the means so far; None without any query."""
        density = rows = float(self._dense_queries)
        sparse_queries = 0
        for (_, heads, groups), calls in self._sparse.items():
            selected, read, visible = (
                torch.cat([part.flatten() for part in parts]).cpu().double()
                for parts in zip(*calls, strict=True)
            )  # N
            # Padding: a query that sees no key does not count.
            real = visible > 0
            sparse_queries += int(real.sum())
            density += float((selected[real] / visible[real]).sum()) / heads
            rows += float((read[real] / visible[real]).sum()) / groups
        queries = sparse_queries + self._dense_queries
        if queries == 0:
            return None
        return KeysRead(
            density=density / queries,
            rows_read=rows / queries,
            sparse_queries=sparse_queries,
            dense_queries=self._dense_queries,
        )
