"""Runs an arm's attention inside a transformers model."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sah.attention.compute import dense_attention, weighted_attention
from sah.attention.eviction.evictor import DecodingEvictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.later_evictions import LaterEvictions
from sah.attention.index import KeyIndex, index_of
from sah.attention.index_sizes import bytes_of, bytes_per_key
from sah.attention.inputs import AttentionInputs, HeldSelection
from sah.attention.interface import attention_replaced, layer_number
from sah.attention.keys_read import KeysRead, ReadCounter
from sah.attention.keywords import check_keywords
from sah.attention.layers import full_attention_layers
from sah.attention.mask import AttentionMask
from sah.attention.methods import DenseAttention, SparseAttention, all_visible
from sah.attention.native.indexer import IndexerSelections
from sah.attention.own_attention import own_attention
from sah.attention.visibility import StepVisibility, Visibility
from sah.seeding import derive

logger = logging.getLogger(__name__)

Observer = Callable[[AttentionInputs, AttentionMask, Tensor], None]
"""Called with a sparse layer's inputs, mask and output. Where keys were evicted, inputs and mask
are of the rows that are held; see `sah.attention.eviction.whole`. An observer may have a method
`skips(layer, queries)`, which a batch calls first, and which says that the call can be left out."""


class AttentionSession:
    """Runs one attention configuration in a model, example by example, and restores the model.

    Holds the state of an arm: the key indexes of each layer, what the queries of the example
    read, and the example that seeds derive from. Apart from forks, sessions share no state, so
    that several arms can take turns on one model.
    """

    def __init__(
        self,
        attention: DenseAttention | SparseAttention,
        *,
        seed: int,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.attention = attention
        self.seed = seed
        self.observers = observers
        self._indexes: dict[int, dict[Hashable, KeyIndex]] = {}
        self._held: dict[int, dict[Hashable, HeldSelection]] = {}
        """Selections that later decode steps of the answer reuse, per layer; never shared."""
        self._is_question = False
        self._context_length = 0
        self._kept: Mapping[int, KeptKeys] = {}
        self._example_id = ""
        self.counter = ReadCounter()
        """Counts what the queries of the example read."""
        self.calls = 0
        """Calls of the attention function in this example, local and dense layers included."""
        self._visibility = StepVisibility()
        self._full_layers: frozenset[int] | None = None
        """Layers that attend to every earlier token; None stands for all of them."""
        self.layers = 0
        """Number of layers of the model, once `learn` has been called."""
        self._selections = IndexerSelections()
        evictor = attention.evictor if isinstance(attention, SparseAttention) else None
        self.evictions = LaterEvictions(evictor) if isinstance(evictor, DecodingEvictor) else None
        """Evictions after the context, if the evictor works there, too; never shared."""

    def begin_context(self, length: int, kept: Mapping[int, KeptKeys] | None = None) -> None:
        """Start a context and drop the indexes of the previous one.

        Args:
            length: keys of the context.
            kept: what is left of them, in the layers that hold only the kept rows.
        """
        self.end_context()
        self._context_length = length
        self._kept = {} if kept is None else kept

    def end_context(self) -> None:
        """Drop the indexes of the context, and what its layers keep."""
        self._indexes.clear()
        self._visibility = StepVisibility()
        self._kept = {}
        self._rewind_evictions()

    def begin_example(self, example_id: str) -> None:
        """Start the next question of the context: rewind the indexes, reset what is counted."""
        for layer in self._indexes:
            self.rewind(layer)
        self._held.clear()
        self._rewind_evictions()
        self._example_id = example_id
        self.counter = ReadCounter()
        self.calls = 0

    def _rewind_evictions(self) -> None:
        if self.evictions is not None:
            self.evictions.rewind()

    def rewind(self, layer: int) -> None:
        """Rewind one layer's indexes to the end of the context."""
        indexes = self._indexes.get(layer, {})
        if self._context_length == 0:
            # Without a context they were built from the previous question.
            indexes.clear()
        for index in indexes.values():
            index.rewind(self.context_rows(layer))

    def rewind_shared(self, layer: int) -> None:
        """Rewind one layer's indexes if other rows may have used them since."""
        if self._context_length:
            self.rewind(layer)

    def own_index(
        self,
        layer: int,
        owner: Hashable,
        build: Callable[[Tensor, Tensor], KeyIndex],
        key: Tensor,
        value: Tensor,
    ) -> KeyIndex:
        """Return a masker's index over all keys of a layer, [1, G, K, D]; see `AttentionInputs`."""
        self.rewind_shared(layer)
        indexes = self._indexes.setdefault(layer, {})
        return index_of(indexes, owner, build, key, value, self.context_rows(layer))

    def adopt_indexes(self, indexes: Mapping[int, Mapping[Hashable, KeyIndex]]) -> None:
        """Measure these indexes of some layers in place of those that other rows share."""
        self._indexes = {**self._indexes, **{n: dict(one) for n, one in indexes.items()}}

    def seed_at(self, layer: int) -> int:
        """Return the seed of the example's draws in a layer."""
        return derive(self.seed, self._example_id, layer)

    def index_seed(self, layer: int) -> int:
        """Return the seed of a layer's indexes, equal for all examples."""
        return derive(self.seed, "index", layer)

    def kept_at(self, layer: int) -> KeptKeys | None:
        """Return what a layer keeps of the context; None if all keys stay."""
        return self._kept.get(layer)

    def context_rows(self, layer: int) -> int:
        """Return the rows that a layer holds of the context."""
        kept = self._kept.get(layer)
        return self._context_length if kept is None else kept.rows

    def fork(self, *observers: Observer, alone: bool = False) -> "AttentionSession":
        """Return a session for another row about the same context.

        Rows about one context share its indexes, and only one of them may use a layer at a time;
        call `rewind` between two. Without a context nothing is shared.

        Args:
            observers: of this row only, beside the session's.
            alone: share no index, as for a row that evicts keys of its context.
        """
        other = AttentionSession(
            self.attention, seed=self.seed, observers=(*self.observers, *observers)
        )
        if self._context_length and not alone:
            other._indexes = self._indexes
        other._context_length, other._kept = self._context_length, self._kept
        return other

    def evicted_later(self) -> tuple[int, int] | None:
        """Return the bytes of the sequence's keys and values that are evicted, and its length.

        None unless the evictor also works while decoding.
        """
        return None if self.evictions is None else self.evictions.evicted()

    def keys_read(self) -> KeysRead | None:
        """Return what the queries of the example read so far.

        Under dense attention that is everything, and no query is counted. Layers that the
        configuration keeps dense count; sliding-window and other local layers, which always keep
        the model's attention, do not.

        Returns:
            None if the session computed nothing yet, as when the answer to a dense question ends
            at its first token.

        Raises:
            ConfigurationError: if no layer was sparse.
        """
        if isinstance(self.attention, DenseAttention):
            return KeysRead(density=1.0, rows_read=1.0, sparse_queries=0, dense_queries=0, keys=0.0)
        if self.calls == 0:
            return None
        if not self.counter.is_sparse:
            raise self.attention.nothing_to_do()
        return self.counter.total()

    def density(self) -> float | None:
        """Return the mean density of the example so far, as in `keys_read`."""
        read = self.keys_read()
        return None if read is None else read.density

    def index_bytes(self) -> dict[str, float]:
        """Return the current size of each masker's key index, in bytes per key and indexed layer.

        The size of constant parts (centroids, planes) is spread over the keys.
        """
        if isinstance(self.attention, DenseAttention):
            return {}
        return bytes_per_key(self._indexes, self.attention.maskers_at)

    def context_index_bytes(self) -> float:
        """Return the bytes of all key indexes, without the share of the keys after the context.

        With that share if keys are evicted while decoding, of evicted keys too.
        """
        return bytes_of(self._indexes, self.context_rows if self.evictions is None else None)

    @contextmanager
    def attached(self, model: PreTrainedModel, *, is_question: bool = False) -> Iterator[None]:
        """Replace the model's attention by this session's; restore everything on exit.

        Args:
            model: of transformers.
            is_question: whether the model reads a question, whose queries reuse no selection.

        Raises:
            ConfigurationError: if dense_layers or layers names a layer the model does not have.
        """
        attention = self.attention
        if isinstance(attention, DenseAttention):
            yield
            return
        self.learn(model.config)
        self._is_question = is_question
        try:
            with (
                self._selections.of(model, attention.uses_indexer),
                attention_replaced(model, self._forward, sdpa_mask),
            ):
                yield
        finally:
            self._is_question = False

    def learn(self, config: PreTrainedConfig) -> None:
        """Learn the layers of a model from its configuration.

        Raises:
            ConfigurationError: if dense_layers or layers names a layer the model does not have.
        """
        if isinstance(self.attention, SparseAttention):
            self.attention.check_named_layers(config)
        self._full_layers = full_attention_layers(config)
        self.layers = config.get_text_config(decoder=True).num_hidden_layers

    def begin_step(self, *, is_question: bool) -> None:
        """Start a forward pass whose layers are computed by `attend`.

        Args:
            is_question: whether it reads a question, whose queries reuse no selection.
        """
        self._is_question = is_question
        if is_question:
            self._held.clear()

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute what `attached` computes, for queries [B, H, Q, D] at the last positions.

        `learn` must have been called. A layer with a sliding window gets the keys in it.

        Args:
            module: the layer's attention module.
            query: see above.
            key: [B, G, K, D].
            value: [B, G, K, V].
            visible: what each query may read, [B, 1, Q, K]; None: what comes before it.
            kwargs: what transformers passes to its attention function.

        Returns:
            [B, Q, H, V].
        """
        attention = self.attention
        if isinstance(attention, SparseAttention):
            maskers = attention.maskers_at(layer_number(module))
        else:
            maskers = None
        if visible is None and query.shape[2] > 1 and maskers is None:
            # Without a mask, sdpa would take the queries for the first ones.
            visible = Visibility.of_call(query, key, None).keys
        if isinstance(attention, SparseAttention):
            return self._forward(module, query, key, value, visible, **kwargs)[0]
        return own_attention(module, query, key, value, visible, **kwargs)

    def is_local(self, layer: int, sliding_window: int | None) -> bool:
        """Whether a layer attends to recent tokens only, by its configuration or its arguments."""
        if sliding_window is not None:
            return True
        return self._full_layers is not None and layer not in self._full_layers

    def _forward(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attention function called by transformers: [B, H, Q, D] in, [B, Q, H, D] out."""
        attention = self.attention
        assert isinstance(attention, SparseAttention)
        layer = layer_number(module)
        batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
        indexed = self._selections.take(module, layer, kwargs, heads=query.shape[1], keys=keys)
        check_keywords(module, queries, attention_mask, kwargs)
        self.calls += 1
        is_local = self.is_local(layer, sliding_window)
        is_dense = is_local or attention.maskers_at(layer) is None
        is_dense = is_dense or (attention.uses_indexer and indexed is None)
        if is_dense and not is_local:
            self.counter.add_dense(layer, batch=batch, queries=queries, keys=keys)
        if is_dense and softcap is None and s_aux is None:
            output, _ = sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **kwargs
            )
            return output, None

        kept = self._kept.get(layer)
        inputs = AttentionInputs(
            query=query,
            key=key,
            value=value,
            visibility=self._visibility.of_call(query, key, attention_mask, kept),
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=softcap,
            sinks=s_aux,
            layer_idx=layer,
            first_position=keys - queries,
            context_length=self.context_rows(layer),
            seed=self.seed_at(layer),
            index_seed=self.index_seed(layer),
            indexes=self._indexes.setdefault(layer, {}),
            indexed=indexed,
            held=None if self._is_question else self._held.setdefault(layer, {}),
            kept=kept,
        )
        if self.evictions is not None and not is_dense:
            singles = self.evictions.queries(inputs, module, layers=self.layers)
            outputs = [self._attend(attention, single) for single in singles]
            return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None
        if not is_dense and softcap is None and s_aux is None and not attention.maskers_at(layer):
            return self._read_all_kept(module, inputs), None
        chunks = inputs.chunks(attention.queries_per_chunk(inputs))
        if is_dense:
            outputs = [dense_attention(chunk, all_visible(chunk)) for chunk in chunks]
        else:
            outputs = [self._attend(attention, chunk) for chunk in chunks]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        return output.transpose(1, 2).contiguous(), None

    def _read_all_kept(self, module: torch.nn.Module, inputs: AttentionInputs) -> Tensor:
        """Compute eviction without maskers as a dense model would: by sdpa over the kept rows.

        Returns:
            [B, Q, H, D].
        """
        kept, queries = inputs.kept, inputs.query.shape[2]
        # A single query sees every row, unless some pad a head.
        padded = kept is not None and kept.valid is not None
        output: Tensor = sdpa_attention_forward(
            module,
            inputs.query,
            inputs.key,
            inputs.value,
            inputs.visible if queries > 1 or padded else None,
            scaling=inputs.scaling,
        )[0]
        self.counter.add_all_kept(inputs.layer_idx, kept, queries=queries, keys=inputs.key.shape[2])
        if self.observers:
            mask, by_head = all_visible(inputs), output.transpose(1, 2)
            for observe in self.observers:
                observe(inputs, mask, by_head)
        return output

    def _attend(self, attention: SparseAttention, inputs: AttentionInputs) -> Tensor:
        mask = attention.select(inputs)
        output = weighted_attention(inputs, mask)
        self.counter.add(inputs, mask)
        for observe in self.observers:
            observe(inputs, mask, output)
        return output
