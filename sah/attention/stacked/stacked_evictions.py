"""Evicts keys of a batch's rows after each decode step, in all rows at once."""

# B rows, H query heads, G key-value heads, K keys of the longest row, N keys or queries of the row
# that has the most

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.later_evictions import LaterEvictions, row_bytes
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.attention.index import rows_kept
from sah.attention.inputs import AttentionInputs
from sah.attention.session import AttentionSession
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.visibility import Visibility


@dataclass(kw_only=True)
class _Layer:
    """What a layer holds of all rows."""

    held: HeldKeys
    kept: list[KeptKeys]
    """What each row keeps of its context."""
    lengths: RowLengths
    row_bytes: int
    """Bytes of a key and its value in one head."""


class StackedEvictions:
    """Runs a `batched` decoding evictor, as `LaterEvictions` does for a single row."""

    def __init__(self, rows: Sequence[LaterEvictions], layers: int) -> None:
        """Take over from the rows.

        Args:
            rows: of equal evictors.
            layers: number of layers of the model.
        """
        self._rows, self._model_layers = list(rows), layers
        self._evictor = rows[0].evictor
        self._layers: dict[int, _Layer] = {}

    @classmethod
    def of(cls, sessions: Sequence[AttentionSession]) -> "StackedEvictions | None":
        """Return the evictions of the rows of some sessions; None without a decoding evictor."""
        rows = [session.evictions for session in sessions if session.evictions is not None]
        return cls(rows, sessions[0].layers) if rows else None

    def before_query(self, inputs: AttentionInputs) -> AttentionInputs:
        """Return the inputs of the last query of each row, which sees the keys that are left."""
        if inputs.layer_idx not in self._layers:
            self._layers[inputs.layer_idx] = self._side_by_side(inputs)
        layer = self._layers[inputs.layer_idx]
        assert inputs.rows is not None
        alive = _with_own_keys(layer.held.alive, layer.lengths)
        layer.held = replace(layer.held, alive=alive)
        visible = alive.repeat_interleave(inputs.group_size, dim=1).unsqueeze(2)  # B H 1 K
        return replace(
            inputs,
            visibility=Visibility(visible),
            rows=replace(inputs.rows, kept=layer.kept),
        )

    def after_query(self, inputs: AttentionInputs, module: nn.Module) -> None:
        """Evict once a query of each row has been read."""
        layer = self._layers[inputs.layer_idx]
        step = QueryStep(inputs=inputs, module=module, layers=self._model_layers)
        layer.held = self._evictor.after_query(layer.held, step)

    def retire(self, number: int) -> None:
        """Hand over what is held of a row whose answer has ended."""
        for layer_idx, layer in self._layers.items():
            keys = layer.lengths.keys[number]
            self._rows[number].end(
                layer_idx,
                layer.held.alive[number : number + 1, :, :keys],
                sequence=keys + layer.kept[number].dropped,
                row_bytes=layer.row_bytes,
            )

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Put rows in the place of others, as (from, to), and continue with the first `rows`."""
        for layer in self._layers.values():
            held = layer.held
            layer.held = HeldKeys(
                alive=rows_kept(held.alive, moves, rows),
                memory=tuple(rows_kept(tensor, moves, rows) for tensor in held.memory),
            )
            for source, target in moves:
                layer.kept[target] = layer.kept[source]
            del layer.kept[rows:]
        for source, target in moves:
            self._rows[target] = self._rows[source]
        del self._rows[rows:]

    def _side_by_side(self, inputs: AttentionInputs) -> _Layer:
        rows, kept = inputs.rows, []
        assert rows is not None
        for number, one in enumerate(rows.kept):
            this = slice(number, number + 1)
            nothing = KeptKeys.nothing(inputs.key[this], inputs.value[this])
            kept.append(nothing if one is None else one)
        held = [
            evictions.held(inputs.layer_idx, one)
            for evictions, one in zip(self._rows, kept, strict=True)
        ]
        assert [one.alive.shape[2] + 1 for one in held] == rows.lengths.keys, "in order"
        return _Layer(
            held=HeldKeys(
                alive=_stacked([one.alive for one in held]),
                memory=tuple(map(_stacked, zip(*(one.memory for one in held), strict=True))),
            ),
            kept=kept,
            lengths=rows.lengths,
            row_bytes=row_bytes(inputs),
        )


def _stacked(
    tensors: Sequence[Shaped[Tensor, "1 heads _ *rest"]],
) -> Shaped[Tensor, "B heads N *rest"]:
    """Put the tensors of rows side by side, padded with zeros at the end of dimension 2."""
    longest = max(tensor.shape[2] for tensor in tensors)
    return torch.cat(
        [
            pad(tensor, (*[0, 0] * (tensor.ndim - 3), 0, longest - tensor.shape[2]))
            for tensor in tensors
        ]
    )


def _with_own_keys(alive: Bool[Tensor, "B G N"], lengths: RowLengths) -> Bool[Tensor, "B G K"]:
    """Add the key of each row's last query."""
    longest = lengths.longest

    def own() -> Tensor:
        position = torch.arange(longest, device=lengths.device)
        return position == lengths.count.view(-1, 1, 1) - 1  # B 1 K

    # One key more than before, unless the longest row has left.
    grown = pad(alive, (0, longest - alive.shape[2]))
    return grown | lengths.cached("own keys", own)
