"""Runs the attention of a batch's rows together."""

# B rows, H query heads, G key-value heads, K keys of the longest row, S query heads per group,
# D head dimension, V value dimension

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sah.attention.compute import dense_attention, weighted_attention
from sah.attention.index import KeyIndex, RowsIndex, StackableIndex
from sah.attention.inputs import AttentionInputs, HeldSelection
from sah.attention.interface import layer_number
from sah.attention.keywords import check_keywords
from sah.attention.mask import AttentionMask
from sah.attention.methods import SparseAttention, all_visible
from sah.attention.session import AttentionSession, Observer
from sah.attention.stacked.batch_rows import BatchRows
from sah.attention.stacked.stacked_evictions import StackedEvictions
from sah.attention.stacked.stacked_layer import StackedLayer
from sah.attention.stacked.stacked_reads import StackedReads


@dataclass(kw_only=True)
class _Indexed:
    """One masker's indexes of all rows, in one layer."""

    index: RowsIndex
    steps: int
    """Decode steps whose keys are in it."""


class StackedSession:
    """Computes decode steps of several rows at once, as their sessions would one by one.

    A layer is computed row by row if one of its maskers is not `batched`, or an evictor that works
    while decoding is not.
    """

    def __init__(
        self,
        sessions: Sequence[AttentionSession],
        begin_turns: Sequence[Callable[[], None]],
    ) -> None:
        """Take over from the sessions of the rows, whose questions have been read.

        Args:
            sessions: one for each row, of equal attention.
            begin_turns: called before each computation for the row alone.
        """
        for session in sessions:
            session.begin_step(is_question=False)
        self._sessions = list(sessions)
        self._begin_turns = list(begin_turns)
        self.attention = sessions[0].attention
        self._reads = StackedReads(len(sessions))
        self._evictions = StackedEvictions.of(sessions)
        self._rows: dict[int, tuple[Sequence[int], Sequence[int]]] = {}
        self._indexes: dict[int, dict[Hashable, _Indexed]] = {}
        self._held: dict[int, dict[Hashable, HeldSelection]] = {}
        self._layers: dict[int, StackedLayer] = {}
        self._dense_layers: dict[int, int] = {}
        """Number of steps in layers that are kept dense."""
        self._whole_layers: dict[int, int] = {}
        """Number of steps in layers that evict and have no maskers."""
        self._calls = 0
        self._computed_by_row: dict[int, bool] = {}

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        layer: StackedLayer,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute one layer for the last query of each row.

        Args:
            module: the layer's attention module.
            query: [B, H, 1, D].
            layer: holds the keys of the queries, too.
            scaling: as the other keywords, what transformers passes to its attention function.
            softcap: see `AttentionInputs`.
            s_aux: attention sinks.
            sliding_window: is that of the layer.
            kwargs: others; refused unless they change nothing.

        Returns:
            [B, 1, H, V].
        """
        number, attention = layer_number(module), self.attention
        self._layers[number] = layer
        check_keywords(module, 1, None, kwargs)
        if self._is_by_row(number, sliding_window):
            return self._by_row(
                module,
                query,
                layer,
                scaling=scaling,
                softcap=softcap,
                s_aux=s_aux,
                sliding_window=sliding_window,
                **kwargs,
            )
        inputs = AttentionInputs(
            query=query,
            key=layer.key,
            value=layer.value,
            visibility=layer.visibility(query.shape[1] // layer.key.shape[1]),
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=softcap,
            sinks=s_aux,
            layer_idx=number,
            index_seed=self._sessions[0].index_seed(number),
            held=self._held.setdefault(number, {}),
            rows=self._batch_rows(number, layer),
        )
        if isinstance(attention, SparseAttention):
            self._calls += 1
            is_local = self._sessions[0].is_local(number, sliding_window)
            if not is_local and attention.maskers_at(number) is None:
                self._dense_layers[number] = self._dense_layers.get(number, 0) + 1
            elif not is_local:
                return self._sparse(attention, inputs, module)
        return _dense(inputs).transpose(1, 2)

    def end_step(self) -> None:
        """Close a decode step of all layers."""
        self._reads.end_step()

    def retire(self, number: int) -> None:
        """Hand over to a row's session what was counted, when its answer has ended."""
        session = self._sessions[number]
        session.calls += self._calls
        for layer, steps in self._dense_layers.items():
            keys = self._layers[layer].lengths.keys[number]
            session.counter.add_dense(layer, batch=1, queries=steps, keys=keys)
        for layer, steps in self._whole_layers.items():
            held = self._layers[layer]
            keys = held.lengths.keys[number]
            session.counter.add_all_kept(layer, held.kept[number], queries=steps, keys=keys)
        self._reads.move_to(session.counter, number)
        if self._evictions is not None:
            self._evictions.retire(number)
        session.adopt_indexes(
            {
                layer: {
                    owner: one.index.row(number, self._indexed_keys(layer, number, one))
                    for owner, one in indexes.items()
                }
                for layer, indexes in self._indexes.items()
            }
        )

    def keep(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Put rows in the place of others, as (from, to), and continue with the first `rows`."""
        order = list(range(len(self._sessions)))
        for source, target in moves:
            order[target] = source
        order = order[:rows]
        self._sessions = [self._sessions[row] for row in order]
        self._begin_turns = [self._begin_turns[row] for row in order]
        self._reads.keep(order)
        self._rows.clear()
        if self._evictions is not None:
            self._evictions.keep(moves, rows)
        for indexes in self._indexes.values():
            for one in indexes.values():
                one.index.keep(moves, rows)
        for held in self._held.values():
            for owner, selection in held.items():
                held[owner] = replace(selection, keys=selection.keys[order])

    def _is_by_row(self, layer: int, sliding_window: int | None) -> bool:
        if layer not in self._computed_by_row:
            attention = self.attention
            by_row = isinstance(attention, SparseAttention) and not attention.batched_at(layer)
            # Local layers keep the model's attention, whatever the maskers are.
            by_row = by_row and not self._sessions[0].is_local(layer, sliding_window)
            self._computed_by_row[layer] = by_row
        return self._computed_by_row[layer]

    def _by_row(
        self, module: torch.nn.Module, query: Tensor, layer: StackedLayer, **kwargs: Any
    ) -> Tensor:
        outputs = []
        for number, (session, begin_turn) in enumerate(
            zip(self._sessions, self._begin_turns, strict=True)
        ):
            begin_turn()
            session.rewind_shared(layer_number(module))
            key, value = layer.row(number)
            one = query[number : number + 1]
            outputs.append(session.attend(module, one, key, value, **kwargs))
        return torch.cat(outputs)

    def _batch_rows(self, number: int, layer: StackedLayer) -> BatchRows:
        if number not in self._rows:
            self._rows[number] = (
                [session.seed_at(number) for session in self._sessions],
                [session.context_rows(number) for session in self._sessions],
            )
        seeds, context_rows = self._rows[number]
        return BatchRows(
            lengths=layer.lengths,
            seeds=seeds,
            context_rows=context_rows,
            kept=layer.kept,
            index=lambda owner, build: self._index(number, owner, build),
        )

    def _sparse(
        self, attention: SparseAttention, inputs: AttentionInputs, module: torch.nn.Module
    ) -> Tensor:
        number = inputs.layer_idx
        if self._evictions is not None:
            inputs = self._evictions.before_query(inputs)
        if self._evictions is None and not attention.maskers_at(number):
            mask = all_visible(inputs) if self._is_observed else None
            output = _dense(inputs)
            self._whole_layers[number] = self._whole_layers.get(number, 0) + 1
        else:
            mask = attention.select(inputs)
            output = weighted_attention(inputs, mask)
            self._reads.add(inputs, mask)
        if mask is not None and self._is_observed:
            self._observe(inputs, mask, output)
        if self._evictions is not None:
            self._evictions.after_query(inputs, module)
        return output.transpose(1, 2)

    @property
    def _is_observed(self) -> bool:
        return any(session.observers for session in self._sessions)

    def _observe(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Show each row's observers what they see when the row is computed alone."""
        assert inputs.rows is not None
        for number, (session, begin_turn) in enumerate(
            zip(self._sessions, self._begin_turns, strict=True)
        ):
            if not session.observers:
                continue
            begin_turn()
            # Most metrics measure few queries: a row is taken out of the batch only for those.
            observers = [one for one in session.observers if not _skips(one, inputs)]
            if observers:
                row = inputs.row(number)
                of_row = mask.row(number, inputs.rows.lengths.keys[number])
                for observe in observers:
                    observe(row, of_row, output[number : number + 1])

    def _index(
        self, number: int, owner: Hashable, build: Callable[[Tensor, Tensor], KeyIndex]
    ) -> KeyIndex:
        """Return the indexes of a layer's rows side by side, with all their keys."""
        layer, indexes = self._layers[number], self._indexes.setdefault(number, {})
        steps = layer.lengths.steps
        if owner not in indexes:
            indexes[owner] = _Indexed(index=self._stacked(number, owner, build), steps=steps)
        one = indexes[owner]
        if one.steps < steps:
            one.index.append(*layer.last(steps - one.steps))
            one.steps = steps
        return one.index  # type: ignore[return-value]

    def _indexed_keys(self, layer: int, row: int, one: _Indexed) -> int:
        """Return how many keys of a row an index has; it waits while selections are reused."""
        lengths = self._layers[layer].lengths
        return lengths.keys[row] - (lengths.steps - one.steps)

    def _stacked(
        self, number: int, owner: Hashable, build: Callable[[Tensor, Tensor], KeyIndex]
    ) -> RowsIndex:
        layer = self._layers[number]
        found = (
            session.own_index(number, owner, build, *layer.row(row))
            for row, session in enumerate(self._sessions)
        )
        first = next(found)
        if not isinstance(first, StackableIndex):
            raise TypeError(
                f"{type(owner).__name__} is `batched`, but its {type(first).__name__} is not a "
                "StackableIndex; add `side_by_side`, or remove `batched`"
            )
        room = max(layer.room, layer.lengths.longest)
        return type(first).side_by_side(_chained(first, found), layer.lengths, room)


def _skips(observe: Observer, inputs: AttentionInputs) -> bool:
    skips: Callable[[int, int], bool] | None = getattr(observe, "skips", None)
    return skips is not None and skips(inputs.layer_idx, 1)


def _chained(first: Any, others: Any) -> Any:
    yield first
    yield from others


def _dense(inputs: AttentionInputs) -> Tensor:
    """Return dense attention of the last query of each row, [B, H, 1, V]."""
    if inputs.softcap is not None or inputs.sinks is not None:
        return dense_attention(inputs, all_visible(inputs))
    dtype = inputs.query.dtype

    def hidden() -> Tensor:
        """What is added to the scores, so that no layer converts the booleans again."""
        visible = inputs.visible  # B #H 1 K
        if visible.shape[1] > 1:
            visible = visible[:, :: inputs.group_size]  # heads of a group see the same keys
        nothing = torch.zeros((), dtype=dtype, device=visible.device)
        return nothing.where(visible, -torch.inf)

    output = scaled_dot_product_attention(
        inputs.grouped(inputs.query),  # B G S D; as queries of one head, so that keys are shared
        inputs.key,
        inputs.value,
        attn_mask=inputs.visibility.cached(("hidden", dtype), hidden),
        scale=inputs.scaling,
    )
    return inputs.per_head(output)
