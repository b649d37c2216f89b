"""Reading only the keys and values that were selected."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D/V dimensions
# N selected keys of the query that has most

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

with warnings.catch_warnings():
    # torch says once per process that its sparse matrices are in beta; said here, unheard.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


@dataclass(frozen=True, kw_only=True)
class SelectedKeys:
    """Where each query's selected keys are; rows with fewer than N end with slots not real."""

    position: Int[Tensor, "B H Q N"]
    """In ascending order; 0 in slots that are not real."""
    real: Bool[Tensor, "B H Q N"]
    _rows: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, selected: Bool[Tensor, "B H Q K"], count: Int[Tensor, "B H Q"]) -> "SelectedKeys":
        """Find the selected keys; `count` is `selected.sum(-1)`."""
        *shape, keys = selected.shape
        flat = selected.reshape(-1)
        if flat.device.type == "cpu":
            # NumPy finds them faster than torch.
            found = torch.from_numpy(np.flatnonzero(flat.numpy()))
        else:
            found = flat.nonzero().squeeze(-1)
        longest = int(count.max())
        real = torch.arange(longest, device=flat.device) < count.unsqueeze(-1)
        first = torch.arange(0, len(flat), keys, device=flat.device).view(*shape, 1)
        if len(found) == real.numel():
            return cls(position=found.view(real.shape) - first, real=real)
        slots = first.repeat(1, 1, 1, longest)
        return cls(position=slots.masked_scatter_(real, found) - first, real=real)

    def products(
        self, query: Float[Tensor, "B H Q D"], key: Float[Tensor, "B G K D"]
    ) -> Float[Tensor, "B H Q N"]:
        """q·k in float32 of each query with its selected keys."""
        matrix, row = self._as_rows(key)
        query = query.flatten(0, 2)
        if matrix.dtype == query.dtype == torch.float32 and matrix.device.type == "cpu":
            # Reads the keys where they lie; of the sparse matrix only the pattern matters.
            pattern = torch.sparse_csr_tensor(
                torch.arange(len(query) + 1) * row.shape[1],
                row.flatten(),
                query.new_zeros(row.numel()),
                (len(query), len(matrix)),
                check_invariants=False,
            )
            entries = torch.sparse.sampled_addmm(pattern, query, matrix.T, beta=0.0)
            products: Tensor = entries.values()
        else:
            gathered = matrix.index_select(0, row.flatten()).view(*row.shape, -1)
            products = gathered.float() @ query.float().unsqueeze(-1)
        return products.view(self.position.shape)

    def weighted_sum(
        self, weight: Float[Tensor, "B H Q N"], value: Float[Tensor, "B G K V"]
    ) -> Float[Tensor, "B H Q V"]:
        """Sum each query's selected values in float32."""
        matrix, row = self._as_rows(value)
        weight = weight.flatten(0, 2)
        if matrix.dtype == torch.float32:
            # Reads the values where they lie.
            total = torch.nn.functional.embedding_bag(
                row, matrix, per_sample_weights=weight, mode="sum"
            )
        else:
            gathered = matrix.index_select(0, row.flatten()).view(*row.shape, -1)
            total = weight.unsqueeze(1) @ gathered.float()
        return total.view(*self.position.shape[:3], value.shape[-1])

    def _as_rows(
        self, tensor: Float[Tensor, "B G K D"]
    ) -> tuple[Float[Tensor, "rows D"], Int[Tensor, "BHQ N"]]:
        """All vectors as the rows of one matrix, and in which rows the selected ones are.

        A view where the vectors lie at multiples of their length, as they do in a cache; rows
        that are no vectors (room kept for later keys) are never asked for.
        """
        groups, dim = tensor.shape[1], tensor.shape[-1]
        if tensor.stride(-1) != 1 or any(stride % dim for stride in tensor.stride()[:-1]):
            tensor = tensor.contiguous()
        steps = tuple(stride // dim for stride in tensor.stride()[:-1])
        count = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=False))
        matrix = tensor.as_strided((count, dim), (dim, 1))
        if (groups, *steps) not in self._rows:
            self._rows[groups, *steps] = self._row_numbers(groups, *steps)
        return matrix, self._rows[groups, *steps]

    def _row_numbers(
        self, groups: int, of_batch: int, of_group: int, of_key: int
    ) -> Int[Tensor, "BHQ N"]:
        """The row of each selected key, `of_…` rows lying from one … to the next."""
        batch, heads = self.position.shape[:2]
        head = torch.arange(heads, device=self.position.device).view(heads, 1, 1)
        first = head.div(heads // groups, rounding_mode="floor") * of_group
        if batch > 1:
            row = torch.arange(batch, device=self.position.device).view(-1, 1, 1, 1)
            first = first + row * of_batch
        position = self.position if of_key == 1 else self.position * of_key
        return (position + first).flatten(0, 2)
