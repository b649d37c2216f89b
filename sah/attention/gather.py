"""Gathering: read only the keys and values that were selected."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D/V dimensions
# N most keys that any query selects, or a bound on them, M B·H·Q rows of queries

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sah.attention import gather_fused, host


@dataclass(frozen=True, kw_only=True)
class SelectedKeys:
    """Positions of each query's selected keys, padded to the longest row."""

    position: Int[Tensor, "B H Q N"]
    """In ascending order; 0 in padding slots."""
    valid: Bool[Tensor, "B H Q N"]
    """False in padding slots, which come last."""
    _rows: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        selected: Bool[Tensor, "B H Q K"],
        count: Int[Tensor, "B H Q"],
        at_most: int | None = None,
    ) -> "SelectedKeys":
        """Find the selected keys.

        Args:
            selected: the keys of each query.
            count: `selected.sum(-1)`.
            at_most: upper bound on `count`, by which rows are padded where the host cannot read
                it; None pads them to K.

        Raises:
            RuntimeError: if `count` exceeds the bound there.
        """
        *shape, keys = selected.shape
        if not host.holds(selected):
            return cls._padded(selected, count, keys if at_most is None else min(at_most, keys))
        flat = selected.reshape(-1)
        found = gather_fused.true_positions(flat)
        longest = int(count.max())
        valid = torch.arange(longest, device=flat.device) < count.unsqueeze(-1)
        start = torch.arange(0, len(flat), keys, device=flat.device).view(*shape, 1)  # B H Q 1
        if len(found) == valid.numel():
            return cls(position=found.view(valid.shape) - start, valid=valid)
        slots = start.repeat(1, 1, 1, longest)
        return cls(position=slots.masked_scatter_(valid, found) - start, valid=valid)

    @classmethod
    def _padded(
        cls, selected: Bool[Tensor, "B H Q K"], count: Int[Tensor, "B H Q"], width: int
    ) -> "SelectedKeys":
        """Pad every row to `width`; nothing waits for the device."""
        # Selected keys go to slots 1 to `width`, all others to slot 0, which is dropped. A key
        # beyond the width has no slot, which the device reports.
        slot = selected.cumsum(-1) * selected
        position = torch.arange(selected.shape[-1], device=selected.device).expand_as(slot)
        slots = slot.new_zeros(*slot.shape[:-1], width + 1).scatter_(-1, slot, position)
        valid = torch.arange(width, device=selected.device) < count.unsqueeze(-1)
        return cls(position=slots[..., 1:], valid=valid)

    def products(
        self, query: Float[Tensor, "B H Q D"], key: Float[Tensor, "B G K D"]
    ) -> Float[Tensor, "B H Q N"]:
        """Return q·k in float32 of each query with its selected keys."""
        matrix, rows = self._as_rows(key)
        query = query.flatten(0, 2)  # M D
        if matrix.dtype == query.dtype == torch.float32 and host.holds(matrix):
            products = gather_fused.products_with_rows(matrix, rows, query)
        else:
            gathered = matrix.index_select(0, rows.flatten()).view(*rows.shape, -1)  # M N D
            products = gathered.float() @ query.float().unsqueeze(-1)
        return products.view(self.position.shape)

    def weighted_sum(
        self, weight: Float[Tensor, "B H Q N"], value: Float[Tensor, "B G K V"]
    ) -> Float[Tensor, "B H Q V"]:
        """Sum each query's selected values in float32."""
        matrix, rows = self._as_rows(value)
        weight = weight.flatten(0, 2)  # M N
        if matrix.dtype == torch.float32:
            total = gather_fused.weighted_sum_of_rows(matrix, rows, weight)
        else:
            gathered = matrix.index_select(0, rows.flatten()).view(*rows.shape, -1)  # M N V
            total = weight.unsqueeze(1) @ gathered.float()
        return total.view(*self.position.shape[:3], value.shape[-1])

    def _as_rows(
        self, tensor: Float[Tensor, "B G K D"]
    ) -> tuple[Float[Tensor, "rows D"], Int[Tensor, "M N"]]:
        """View all vectors as rows of one matrix; return it and the rows of the selected ones.

        Copies only if vectors do not start at multiples of their length, as they do in a cache.
        Other rows of the matrix may hold anything, such as the room a cache keeps for later keys;
        they are never read.
        """
        groups, dim = tensor.shape[1], tensor.shape[-1]
        if tensor.stride(-1) != 1 or any(stride % dim for stride in tensor.stride()[:-1]):
            tensor = tensor.contiguous()
        steps = tuple(stride // dim for stride in tensor.stride()[:-1])  # in rows
        count = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, steps, strict=False))
        matrix = tensor.as_strided((count, dim), (dim, 1))
        if (groups, *steps) not in self._rows:
            self._rows[groups, *steps] = self._row_numbers(groups, *steps)
        return matrix, self._rows[groups, *steps]

    def _row_numbers(
        self, groups: int, batch_step: int, group_step: int, key_step: int
    ) -> Int[Tensor, "M N"]:
        """Return the row of each selected key; steps are rows from one batch, group, key on."""
        batch, heads = self.position.shape[:2]
        head = torch.arange(heads, device=self.position.device).view(heads, 1, 1)
        start = head.div(heads // groups, rounding_mode="floor") * group_step  # H 1 1
        if batch > 1:
            row = torch.arange(batch, device=self.position.device).view(-1, 1, 1, 1)
            start = start + row * batch_step  # B H 1 1
        position = self.position if key_step == 1 else self.position * key_step
        return (position + start).flatten(0, 2)
