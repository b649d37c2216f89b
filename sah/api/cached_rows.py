"""The keys of each row of a batch, and the attention of its decode steps."""

# B batch, H query heads, G key-value heads, Q queries, N new keys, K keys, D head dimension

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from sah.attention import SparseAttention
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.reconstruction import Reconstructed, Reconstruction
from sah.attention.eviction.witness import Witnessed
from sah.attention.interface import layer_number
from sah.attention.keys_read import KeysRead
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.models.cache import BufferedLayer, RewindableCache, held_bytes
from sah.models.eviction import evicted
from sah.models.language_model import PrefilledContext

# Keys after the context that a row has room for at first; more cost a copy.
_ROOM = 256

_EXAMPLE = "attached"
"""Seeds derive from it: a row draws the same in any batch."""


class RowSession(AttentionSession):
    """The session of one row, which only ever computes single layers (`attend`)."""

    def __init__(self, attention: SparseAttention, *, seed: int, config: PreTrainedConfig) -> None:
        super().__init__(attention, seed=seed)
        self._config = config
        self.learn(config)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RowSession":
        """Copy the state of the row; what was read so far counts for the original only."""
        assert isinstance(self.attention, SparseAttention)
        other = RowSession(self.attention, seed=self.seed, config=self._config)
        other._context_length, other._example_id = self._context_length, self._example_id
        for name in ("_indexes", "_held", "_kept", "evictions"):
            setattr(other, name, copy.deepcopy(getattr(self, name), memo))
        return other


@dataclass(frozen=True, kw_only=True)
class ReadPrefill:
    """What was noted beside the keys and values while one context was read."""

    witnessed: Mapping[int, Witnessed] = field(default_factory=dict)
    """What an evictor or rewriter needs, by layer."""
    reconstructions: dict[Reconstruction, Reconstructed] = field(default_factory=dict)
    """Of the passes in which the model repeated the context."""
    density: float = 1.0
    """Share of the visible pairs of query and key that the context's queries read."""


@dataclass(kw_only=True)
class Row:
    """One sequence of a batch: its cache without padding, and its session."""

    cache: RewindableCache
    """Holds the full-attention layers only."""
    session: RowSession
    bytes: tuple[int, int]
    """Bytes of these layers at the end of the context: held, and in a dense cache."""
    prefill_density: float
    """Share of the visible pairs of query and key that the context's queries read."""
    other_bytes: float = 0.0
    """Bytes of all other layers."""

    def resident(self, cache_bytes: Callable[[int], int]) -> float:
        """Return the bytes held as a share of the dense cache, as in `Prediction.resident`.

        Args:
            cache_bytes: the size of the dense cache of a number of tokens.
        """
        held, dense = (own + self.other_bytes for own in self.bytes)
        later = self.session.evicted_later()
        if later is not None:
            evicted_bytes, tokens = later
            dense = cache_bytes(tokens)
            held = dense - evicted_bytes
        return (held + self.session.context_index_bytes()) / dense


class RowsLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a DynamicCache whose keys are in the rows of the batch.

    Its length is that of the padded batch, from which transformers derives masks and positions.
    """

    def __init__(self, rows: "CachedRows", like: Tensor, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = rows
        self.length = length
        self.lazy_initialization(like, like)
        self.keys = self.values = like[:, :, :0].clone()

    def get_seq_length(self) -> int:
        """Return the number of columns, padding and evicted keys included."""
        return self.length

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values unchanged: the attention function appends them."""
        self.rows.require_open()
        self.length += key_states.shape[2]
        return key_states, value_states

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to shorten the cache."""
        if tokens_to_remove != 0:
            raise _unsupported("shortening the cache (assisted generation)")

    def reset(self) -> None:
        """Refuse to empty the cache."""
        raise _unsupported("cache.reset()")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Refuse beam search."""
        raise _unsupported("reordering the cache (beam search)")

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Refuse to repeat rows."""
        raise _unsupported("repeating the rows of a cache")

    def batch_select_indices(self, indices: Tensor) -> None:
        """Refuse to select rows."""
        raise _unsupported("selecting rows of a cache")


class CachedRows:
    """The rows of one batch, from the end of its prefill on."""

    def __init__(
        self,
        rows: Sequence[Row],
        padding: Sequence[int],
        *,
        is_open: Callable[[], bool],
        on_copy: "Callable[[CachedRows], None]",
    ) -> None:
        self.rows = rows
        self.padding = padding
        """Columns on the left of each row that are not part of it."""
        self._is_open = is_open
        self._on_copy = on_copy

    def require_open(self) -> None:
        """Check that the sparse attention is attached.

        Raises:
            ConfigurationError: if it is not.
        """
        if not self._is_open():
            raise ConfigurationError(
                "this cache was filled inside `with sah.attach(…)`, which has ended: its keys are "
                "stored for sparse attention; fill a new cache"
            )

    def begin_step(self, *, is_question: bool) -> None:
        """Start a forward pass over all rows."""
        for row in self.rows:
            row.session.begin_step(is_question=is_question)

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dense: RowSession | None,
        **kwargs: Any,
    ) -> Tensor:
        """Append new keys [B, G, N, D], and attend with the queries [B, H, Q, D] row by row.

        Args:
            module: the layer's attention module.
            query: of the new tokens.
            key: of the new tokens.
            value: of the new tokens.
            dense: a session that attends in place of the rows' own.
            kwargs: as transformers passes them.

        Returns:
            [B, Q, H, D].

        Raises:
            ConfigurationError: if the layer caches something other than what it attends to.
        """
        number, outputs = layer_number(module), []
        for index, row in enumerate(self.rows):
            cached: Any = row.cache.layers[number]
            one = slice(index, index + 1)
            if cached.keys.shape[1::2] != key.shape[1::2] or key.shape[2] != query.shape[2]:
                raise ConfigurationError(
                    f"{type(module).__name__} attends to keys of shape {list(key.shape)}, which "
                    f"are not those that layer {number} caches {list(cached.keys.shape)}, so that "
                    "sah.attach cannot store them; use `sah run`, or another model"
                )
            keys, values = cached.update(key[one], value[one])  # 1 G K D
            session = row.session if dense is None else dense
            outputs.append(session.attend(module, query[one], keys, values, **kwargs))
        return torch.cat(outputs)

    def keys_read(self) -> list[KeysRead]:
        """Return what the queries of each row read so far, of those that had any."""
        sessions = [row.session for row in self.rows if row.session.calls]
        return [read for session in sessions if (read := session.keys_read()) is not None]

    def __deepcopy__(self, memo: dict[int, Any]) -> "CachedRows":
        """Copy the rows, so that several questions can continue one prefilled context."""
        other = CachedRows(
            copy.deepcopy(self.rows, memo),
            self.padding,
            is_open=self._is_open,
            on_copy=self._on_copy,
        )
        memo[id(self)] = other
        self._on_copy(other)
        return other


def taken(
    cache: DynamicCache, numbers: Sequence[int], padding: Sequence[int], config: PreTrainedConfig
) -> list[RewindableCache]:
    """Move the keys and values of some layers to a cache for each row, without padding.

    Layer by layer, so that only one is in memory twice.

    Args:
        cache: filled by the prefill of a batch; the layers are empty afterwards.
        numbers: the full-attention layers.
        padding: columns on the left of each row.
        config: of the model.
    """
    layers: list[Any] = cache.layers
    length = cache.get_seq_length(numbers[0])
    rows = [RewindableCache(config, length - columns + _ROOM) for columns in padding]
    for number in numbers:
        held = layers[number].keys, layers[number].values
        for row, (own, columns) in enumerate(zip(rows, padding, strict=True)):
            into: Any = own.layers[number]
            into.update(*(states[row : row + 1, :, columns:] for states in held))
        layers[number].keys, layers[number].values = (states[:, :, :0].clone() for states in held)
    for own, columns in zip(rows, padding, strict=True):
        own.length = length - columns
        own.mark()
    return rows


def window_layers(cache: DynamicCache, full: Sequence[int]) -> list[int]:
    """Return the numbers of the layers beside the full-attention ones.

    Raises:
        ConfigurationError: if one caches something other than the keys of a sliding window.
    """
    others = [number for number in range(len(cache.layers)) if number not in full]
    for number in others:
        kind = type(cache.layers[number])
        if kind is not DynamicSlidingWindowLayer:
            raise ConfigurationError(
                "a pattern reads each row of a batch alone, and sah.attach cannot join what layer "
                f"{number} caches ({kind.__name__}); use batches of one row without padding"
            )
    return others


def replace_windows(
    cache: DynamicCache, row: int, alone: DynamicCache, windows: Sequence[int]
) -> None:
    """Replace the sliding windows of one row of a batch by those of the row read alone."""
    for number in windows:
        into: Any = cache.layers[number]
        own: Any = alone.layers[number]
        length = own.keys.shape[2]
        into.keys[row, :, -length:] = own.keys[0]
        into.values[row, :, -length:] = own.values[0]


def row_of(
    cache: RewindableCache,
    read: ReadPrefill,
    attention: SparseAttention,
    config: PreTrainedConfig,
    *,
    seed: int,
) -> Row:
    """Return a row with what its attention keeps of a context.

    Args:
        cache: from `taken`.
        read: what was noted when the context was read.
        attention: of the row.
        config: of the model.
        seed: of the evictors and maskers.

    Raises:
        ConfigurationError: if the layers cannot be compacted.
    """
    own = PrefilledContext(
        cache=cache,
        length=cache.length,
        seconds=0.0,
        witnessed=read.witnessed,
        reconstructions=read.reconstructions,
    )
    if attention.witness is not None:
        own = evicted(own, attention, config, seed=seed)
    session = RowSession(attention, seed=seed, config=config)
    kept = None if own.kept is None else {n: _without_rows(one) for n, one in own.kept.items()}
    for number, one in (kept or {}).items():
        compacted: Any = own.cache.layers[number]
        compacted.kept = one
    session.begin_context(own.length, kept)
    session.begin_example(_EXAMPLE)
    # The other layers are in the cache of the batch.
    empty = sum(held_bytes(layer) for layer in cache.layers if not isinstance(layer, BufferedLayer))
    return Row(
        cache=own.cache,
        session=session,
        bytes=(own.cache.bytes_held() - empty, cache.bytes_held() - empty),
        prefill_density=read.density,
    )


def _without_rows(kept: KeptKeys) -> KeptKeys:
    """Release the context's own keys and values; only their shape is needed."""
    hollow = [one.new_zeros((1, 1, 1, 1)).expand(one.shape) for one in (kept.key, kept.value)]
    return replace(kept, key=hollow[0], value=hollow[1])


def _unsupported(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"sah.attach does not support {what}: the keys of a cache belong to the rows that were "
        "prefilled; use greedy decoding or sampling"
    )
