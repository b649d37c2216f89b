"""What the rows of a batch read, counted on the device for all of them at once."""

# B rows, H query heads, G key-value heads, C calls

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from sah.attention.inputs import AttentionInputs
from sah.attention.keys_read import ReadCounter
from sah.attention.mask import AttentionMask


class _Kind(NamedTuple):
    """Calls whose counts can be put together."""

    device: torch.device
    heads: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Sums over heads, [C, B]."""

    rows: Sequence[int]
    """Which rows the columns belong to, by their numbers at the start."""
    selected: Int[Tensor, "C B"]
    read: Int[Tensor, "C B"]
    visible: Int[Tensor, "C B"]


class StackedReads:
    """Counts the reads of sparse layers step by step; `move_to` hands a row's share over."""

    def __init__(self, rows: int) -> None:
        self._rows = tuple(range(rows))
        self._step: dict[_Kind, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._counts: dict[_Kind, list[_Counts]] = {}
        self._layers: set[int] = set()

    def add(self, inputs: AttentionInputs, mask: AttentionMask) -> None:
        """Count one call of a layer."""
        kind = _Kind(inputs.query.device, inputs.query.shape[1], inputs.key.shape[1])
        selected = mask.selected_count.sum((1, 2))  # B
        # With one query head for each key-value head, rows are read once.
        alike = kind.heads == kind.groups
        read = selected if alike else mask.rows_read(kind.groups).sum((1, 2))
        visible = inputs.sequence_count.view(-1).expand(selected.shape)
        self._step.setdefault(kind, []).append((selected, read, visible))
        self._layers.add(inputs.layer_idx)

    def end_step(self) -> None:
        """Put the counts of the step's layers together."""
        for kind, calls in self._step.items():
            selected, read, visible = (torch.stack(part) for part in zip(*calls, strict=True))
            self._counts.setdefault(kind, []).append(
                _Counts(rows=self._rows, selected=selected, read=read, visible=visible)
            )
        self._step.clear()

    def keep(self, order: Sequence[int]) -> None:
        """Continue with some of the present rows, in this order."""
        self._rows = tuple(self._rows[row] for row in order)

    def move_to(self, counter: ReadCounter, number: int) -> None:
        """Add what a row read to its counter; `number` is its place now."""
        row = self._rows[number]
        for kind, steps in self._counts.items():
            places = [counts.rows.index(row) for counts in steps]
            selected, read, visible = (
                torch.cat([part[:, place] for part, place in zip(parts, places, strict=True)])
                for parts in zip(
                    *((one.selected, one.read, one.visible) for one in steps), strict=True
                )
            )
            counter.add_counts(
                self._layers,
                heads=kind.heads,
                groups=kind.groups,
                selected=selected,
                read=read,
                visible=visible,
            )
