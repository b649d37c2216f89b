"""Numbers of keys in the rows of a batch, each with a sequence of its own length."""

# B rows, N last keys of each row

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, cast

import torch
from jaxtyping import Int
from torch import Tensor

Made = TypeVar("Made")


class RowLengths:
    """How many keys each row of a batch has in some layers, on the host and on the device.

    Each decode step adds one key to every row. Layers whose rows have the same numbers of keys
    share one instance.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        self.keys = list(keys)
        """Of each row, known on the host."""
        self.steps = 0
        """Decode steps so far."""
        self.device = device
        self._made: dict[Hashable, object] = {}
        self._constants: dict[tuple[int, ...], Tensor] = {}
        self._count = self._on_device()
        self._rows = torch.arange(len(keys), device=device)

    @property
    def longest(self) -> int:
        """The largest number of keys."""
        return max(self.keys)

    @property
    def rows(self) -> Int[Tensor, " B"]:
        """The numbers of the rows, to index with."""
        return self._rows

    @property
    def count(self) -> Int[Tensor, " B"]:
        """The number of keys of each row."""
        return self._count

    def advance(self) -> None:
        """Give every row one more key."""
        self.keys = [keys + 1 for keys in self.keys]
        self._count = self._count + 1
        self.steps += 1
        self._made.clear()

    def keep(self, order: Sequence[int]) -> None:
        """Continue with some of the rows, in this order."""
        self.keys = [self.keys[row] for row in order]
        self._made.clear()
        self._constants.clear()
        self._count = self._on_device()
        self._rows = self._rows[: len(order)]

    def last(self, count: int = 1) -> Int[Tensor, "B N"]:
        """Return the positions of the last keys of each row."""

        def positions() -> Tensor:
            return self._count.unsqueeze(1) + torch.arange(-count, 0, device=self.device)

        return self.cached(("last", count), positions)

    def constant(self, numbers: Sequence[int]) -> Int[Tensor, " B"]:
        """Return numbers of the rows that stay the same for many steps, copied once."""
        key = tuple(numbers)
        if key not in self._constants:
            self._constants[key] = torch.tensor(key, device=self.device)
        return self._constants[key]

    def cached(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return the result of `make`, computed once a step and shared by the layers."""
        if key not in self._made:
            self._made[key] = make()
        return cast(Made, self._made[key])

    def _on_device(self) -> Tensor:
        return torch.tensor(self.keys, device=self.device)
