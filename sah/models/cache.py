"""A key-value cache that grows in place and goes back to the context after every answer."""

# B batch, G key-value heads, N new keys, D head dimension

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A DynamicLayer whose keys and values are views of a buffer with room to grow.

    DynamicLayer concatenates: every decode step copies the whole cache. Here a step
    writes one row. Cropping only shortens the views.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self._key_buffer: Tensor
        self._value_buffer: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers: no copy of what is cached is ever needed up to `capacity`."""
        super().lazy_initialization(key_states, value_states)
        self._key_buffer = _buffer_like(key_states, self.capacity)
        self._value_buffer = _buffer_like(value_states, self.capacity)
        self.keys = self._key_buffer[:, :, :0]
        self.values = self._value_buffer[:, :, :0]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [B, G, N, D] keys and values; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[-2]
        stop = start + key_states.shape[-2]
        if stop > self.capacity:
            self.capacity = max(stop, self.capacity + self.capacity // 4)
            self._key_buffer = _grown(self._key_buffer, start, self.capacity)
            self._value_buffer = _grown(self._value_buffer, start, self.capacity)
        self._key_buffer[:, :, start:stop] = key_states
        self._value_buffer[:, :, start:stop] = value_states
        self.keys = self._key_buffer[:, :, :stop]
        self.values = self._value_buffer[:, :, :stop]
        return self.keys, self.values


class RewindableCache(DynamicCache):
    """The cache of one context: `mark` where the context ends, `rewind` after each answer.

    Full-attention layers are cropped, which copies nothing. Other layers (sliding
    windows, linear attention) forget what they no longer need, so that they are copied
    at the mark: a window is small.
    """

    def __init__(self, config: PreTrainedConfig, capacity: int) -> None:
        super().__init__(config=config)
        self.layers = [
            BufferedLayer(capacity) if type(layer) is DynamicLayer else layer
            for layer in self.layers
        ]
        self._marked_length = 0
        self._marked_layers: dict[int, Any] = {}

    @property
    def is_croppable(self) -> bool:
        """Whether every layer can be shortened without a copy."""
        return all(isinstance(layer, BufferedLayer) for layer in self.layers)

    def mark(self) -> None:
        """Remember this moment."""
        self._marked_length = self.get_seq_length()
        self._marked_layers = {
            number: _snapshot(layer)
            for number, layer in enumerate(self.layers)
            if not isinstance(layer, BufferedLayer)
        }

    def rewind(self) -> None:
        """Go back to the marked moment."""
        for number, layer in enumerate(self.layers):
            if isinstance(layer, BufferedLayer):
                layer.crop(self._marked_length - layer.get_seq_length())
            else:
                self.layers[number] = _snapshot(self._marked_layers[number])


def _snapshot(layer: Any) -> Any:
    # A sliding window replaces its tensors and never writes into them.
    if type(layer) is DynamicSlidingWindowLayer:
        return copy.copy(layer)
    return copy.deepcopy(layer)


def _buffer_like(states: Tensor, capacity: int) -> Tensor:
    shape = (*states.shape[:2], max(capacity, states.shape[2]), states.shape[3])
    return torch.empty(shape, dtype=states.dtype, device=states.device)


def _grown(buffer: Tensor, used: int, capacity: int) -> Tensor:
    larger = _buffer_like(buffer[:, :, :0], capacity)
    larger[:, :, :used] = buffer[:, :, :used]
    return larger
