"""A key-value cache that grows in place and rewinds to the context after every answer."""

# B batch, G key-value heads, N new keys, D head dimension

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

from sah.attention import KeyBuffer
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.rewriter import Rewritten


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A DynamicLayer whose keys and values are views of a preallocated buffer.

    DynamicLayer concatenates, which copies the whole cache at every decode step. This layer
    writes only the new row. Cropping only shortens the views.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int) -> None:
        """Make a layer that is allocated once for up to `capacity` keys."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self._buffers: tuple[KeyBuffer, KeyBuffer]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for `capacity` keys, or for the first update if it has more."""
        super().lazy_initialization(key_states, value_states)
        room = max(self.capacity, key_states.shape[2])
        keys, values = (
            KeyBuffer(states[:, :, :0], dim=2, room=room) for states in (key_states, value_states)
        )
        self._buffers = keys, values
        self.keys, self.values = keys.filled, values.filled

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, each [B, G, N, D]; return all that are cached."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            # `crop` shortens only the views; the buffer follows here.
            buffer.rewind(self.keys.shape[2])
            buffer.append(states)
        self.keys, self.values = (buffer.filled for buffer in self._buffers)
        return self.keys, self.values


class CompactedLayer(BufferedLayer):  # type: ignore[no-untyped-call]
    """A layer that holds only the kept rows of a context, and everything after it.

    Its length is that of the sequence, so that later tokens get the positions they would have
    without eviction.
    """

    def __init__(self, kept: KeptKeys, room: int, rewritten: Rewritten | None = None) -> None:
        """Copy the kept rows of a context.

        Args:
            kept: which ones, and the context's keys and values.
            room: keys after the context to reserve memory for.
            rewritten: what these rows hold instead; None for the context's keys and values.
        """
        super().__init__(kept.rows + room)
        self.kept = kept
        self._packed_bytes = None if rewritten is None else rewritten.packed_bytes
        if rewritten is None:
            self.update(kept.rows_of(kept.key), kept.rows_of(kept.value))
        else:
            self.update(rewritten.key, rewritten.value)

    def get_seq_length(self) -> int:
        """Return the length of the sequence, evicted keys included."""
        return int(self.keys.shape[2]) + self.kept.dropped

    @property
    def unneeded_bytes(self) -> int:
        """Bytes beyond packed storage: rows that pad heads with fewer keys, and what is rewritten.

        Negative if packed storage needs more, as with codes of 16 bits for numbers of 16 bits.
        """
        if self._packed_bytes is None and self.kept.valid is None:
            return 0
        row = self.keys[0, 0, 0].nbytes + self.values[0, 0, 0].nbytes
        if self._packed_bytes is None:
            return int((~self.kept.occupied).sum()) * row
        return self.kept.position.numel() * row - self._packed_bytes


class RewindableCache(DynamicCache):
    """The cache of one context: `mark` at the end of the context, `rewind` after each answer.

    Full-attention layers are cropped, which copies nothing. Other layers (sliding windows, linear
    attention) discard earlier state and cannot be cropped, so they are copied at the mark, which
    is cheap as they are small.
    """

    def __init__(self, config: PreTrainedConfig, capacity: int, spare: int = 0) -> None:
        """Make an empty cache.

        Args:
            config: of the model.
            capacity: tokens that the sequence may reach; more work, but cost a copy.
            spare: rows beyond it, for tokens that are read in between and belong to no answer.
        """
        super().__init__(config=config)
        self.capacity = capacity
        self.length = 0
        """Tokens so far; known for layers without keys too."""
        self.layers = [
            BufferedLayer(capacity + spare) if type(layer) is DynamicLayer else layer
            for layer in self.layers
        ]
        self._marked_length = 0
        self._marked_layers: dict[int, Any] = {}

    @property
    def has_rows(self) -> bool:
        """Whether all that it holds are keys and values, in a row for each token."""
        return all(
            isinstance(layer, BufferedLayer) or type(layer) is DynamicSlidingWindowLayer
            for layer in self.layers
        )

    def bytes_per_token(self) -> int:
        """Return the bytes that each token adds, in the layers that keep all keys.

        Measured on the keys and values held, of which there must be some.
        """
        return sum(_bytes_per_key(layer) for layer in self.layers if window_of(layer) is None)

    def bytes_at(self, tokens: int) -> int:
        """Return the size of a cache of this many tokens: keys, values and other states.

        Measured on what this cache holds, which must be at least one token.
        """
        by_layer = sum(
            _bytes_per_key(layer) * min(tokens, window_of(layer) or tokens) + _state_bytes(layer)
            for layer in self.layers
        )
        return by_layer + self.indexer_bytes() * tokens // max(1, self.length)

    def indexer_bytes(self) -> int:
        """Return the bytes that the model's own indexer holds now: its keys of every token."""
        return sum(map(_indexer_bytes, self.layers))

    def bytes_held(self) -> int:
        """Return the bytes of the keys, values and other states that it holds now.

        Rewritten keys and values count as they would be stored packed; `indexer_bytes` do not.
        """
        return sum(
            held_bytes(layer) - (layer.unneeded_bytes if isinstance(layer, CompactedLayer) else 0)
            for layer in self.layers
        )

    def with_layers(self, compacted: Mapping[int, CompactedLayer]) -> "RewindableCache":
        """Return a cache with compacted layers in place of some, which shares the others.

        Marked at the end of the context. The two must be used in turn.

        Args:
            compacted: by layer, of a cache that is at its mark.
        """
        other = copy.copy(self)
        other.layers = [compacted.get(number, layer) for number, layer in enumerate(self.layers)]
        other.rewind()
        return other

    def marked_here(self) -> "RewindableCache":
        """Return a cache that shares all layers and rewinds to the present state.

        The two must be used in turn; this one's own mark remains.
        """
        other = copy.copy(self)
        other.layers = list(self.layers)
        other.mark()
        return other

    def mark(self) -> None:
        """Remember the current state."""
        self._marked_length = self.length
        self._marked_layers = {
            number: _snapshot(layer)
            for number, layer in enumerate(self.layers)
            if not isinstance(layer, BufferedLayer)
        }

    def rewind(self) -> None:
        """Return to the marked state."""
        self.length = self._marked_length
        for number, layer in enumerate(self.layers):
            if isinstance(layer, BufferedLayer):
                if layer.get_seq_length() > self.length:
                    layer.crop(self.length - layer.get_seq_length())  # minus keys to remove
            else:
                self.layers[number] = _snapshot(self._marked_layers[number])


class PassThroughCache(DynamicCache):
    """Stores nothing: a layer's attention gets its new keys and values, and adds the others."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the arguments unchanged."""
        return key_states, value_states


# Keys that the model's own indexer scores, and their positions; by architecture.
_INDEXER_STATES = ("indexer_keys", "indexer_position_ids", "idx_keys")


def held_bytes(layer: Any) -> int:
    """Return the bytes of keys, values and other states of one layer."""
    parts = [getattr(layer, "keys", None), getattr(layer, "values", None)]
    return sum(int(part.nbytes) for part in parts if part is not None) + _state_bytes(layer)


def window_of(layer: Any) -> int | None:
    """Return the sliding window of a layer, if it has one.

    Some models, such as Qwen2-MoE, do not hand it to their attention function.
    """
    window: int | None = getattr(layer, "sliding_window", None)
    return window


def _indexer_bytes(layer: Any) -> int:
    states = [getattr(layer, name, None) for name in _INDEXER_STATES]
    return sum(int(state.nbytes) for state in states if state is not None)


def _bytes_per_key(layer: Any) -> int:
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None or keys.shape[2] == 0:
        return 0
    return int(keys.nbytes + values.nbytes) // int(keys.shape[2])


def _state_bytes(layer: Any) -> int:
    """Return the size of what does not grow with the tokens, as in state-space layers."""
    if isinstance(layer, BufferedLayer):
        return 0
    grown = ("keys", "values", *_INDEXER_STATES)
    held = [value for name, value in vars(layer).items() if name not in grown]
    leaves = tree_leaves(held)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))


def _snapshot(layer: Any) -> Any:
    # Keys and values are replaced when they grow and never written into: a shallow copy suffices.
    if type(layer) is DynamicSlidingWindowLayer or _has_indexer_keys(layer):
        return copy.copy(layer)
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        return _with_copied_states(layer)
    return copy.deepcopy(layer)


def _has_indexer_keys(layer: Any) -> bool:
    return any(hasattr(layer, name) for name in _INDEXER_STATES)


def _with_copied_states(layer: Any) -> Any:
    """Copy a layer with its states, which are updated in place; keys and values are shared."""
    copied = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(copied, name, {key: _cloned(item) for key, item in value.items()})
    return copied


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
