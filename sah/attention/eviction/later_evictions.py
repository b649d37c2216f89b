"""Evicts keys after the context, query by query; the state of one answer."""

# B batch, H query heads, G key-value heads, R rows, D/V dimensions

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.functional import pad

from sah.attention.eviction.evictor import DecodingEvictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.attention.inputs import AttentionInputs
from sah.attention.visibility import Visibility


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """What a layer holds, and what it would hold without eviction."""

    held: HeldKeys
    sequence: int
    """Keys of the sequence, evicted ones included."""
    row_bytes: int
    """Bytes of a key and its value in one head."""


class LaterEvictions:
    """Runs a decoding evictor over the queries of one answer, each layer on its own.

    Evicted rows stay in the cache and are masked: queries read what they would read if the rows
    were gone, but memory and speed are those of a cache that keeps them.
    """

    def __init__(self, evictor: DecodingEvictor) -> None:
        self.evictor = evictor
        self._layers: dict[int, _Layer] = {}

    def rewind(self) -> None:
        """Return to the end of the context."""
        self._layers.clear()

    def queries(
        self, inputs: AttentionInputs, module: nn.Module, *, layers: int
    ) -> Iterator[AttentionInputs]:
        """Yield the inputs of each query in order, and evict when the caller asks for the next one.

        Any chunking of the queries gives the same.

        Args:
            inputs: of queries at the last positions.
            module: the layer's attention module.
            layers: number of layers of the model.
        """
        kept = KeptKeys.nothing(inputs.key, inputs.value) if inputs.kept is None else inputs.kept
        held = self.held(inputs.layer_idx, kept)
        queries = inputs.query.shape[2]
        for number in range(queries):
            rows = inputs.first_position + number + 1
            assert held.alive.shape[2] == rows - 1, "queries come in order, after begin_example"
            held = replace(held, alive=pad(held.alive, (0, 1), value=True))
            alive = held.alive.repeat_interleave(inputs.group_size, dim=1).unsqueeze(2)  # B H 1 R
            single = replace(
                inputs,
                query=inputs.query[:, :, number : number + 1],
                key=inputs.key[:, :, :rows],
                value=inputs.value[:, :, :rows],
                visibility=Visibility(alive),
                first_position=rows - 1,
                later_queries=queries - 1 - number,
                kept=kept,
            )
            yield single
            step = QueryStep(inputs=single, module=module, layers=layers)
            held = self.evictor.after_query(held, step)
            self._layers[inputs.layer_idx] = _Layer(
                held=held,
                sequence=rows + kept.dropped,
                row_bytes=row_bytes(inputs),
            )

    def held(self, layer: int, kept: KeptKeys) -> HeldKeys:
        """Return what a layer holds before the next query, given what it keeps of the context."""
        known = self._layers.get(layer)
        return HeldKeys(alive=kept.occupied, memory=kept.memory) if known is None else known.held

    def end(
        self, layer: int, alive: Bool[Tensor, "B G R"], *, sequence: int, row_bytes: int
    ) -> None:
        """Take over what a layer holds after the last query, which was computed in a batch.

        Args:
            layer: its number.
            alive: as in `HeldKeys`.
            sequence: keys of the sequence, evicted ones included.
            row_bytes: bytes of a key and its value in one head.
        """
        held = HeldKeys(alive=alive)
        self._layers[layer] = _Layer(held=held, sequence=sequence, row_bytes=row_bytes)

    def evicted(self) -> tuple[int, int] | None:
        """Return the bytes that are not held at this point, and the length of the sequence.

        None before the first query.
        """
        if not self._layers:
            return None
        gone = 0
        for layer in self._layers.values():
            alive = layer.held.alive
            heads = alive.shape[0] * alive.shape[1]
            gone += (heads * layer.sequence - int(alive.sum())) * layer.row_bytes
        return gone, max(layer.sequence for layer in self._layers.values())


def row_bytes(inputs: AttentionInputs) -> int:
    """Return the bytes of a key and its value in one head."""
    return sum(states.shape[-1] * states.element_size() for states in (inputs.key, inputs.value))
