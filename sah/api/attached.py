"""An attention at work in the user's model: which pass is a prefill, and what queries read."""

# B batch, H query heads, Q queries, K keys, D head dimension

import functools
import inspect
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import sdpa_mask

from sah.api.cached_rows import (
    CachedRows,
    ReadPrefill,
    Row,
    RowSession,
    RowsLayer,
    replace_windows,
    row_of,
    taken,
    window_layers,
)
from sah.api.passes import (
    left_padding,
    own_inputs,
    replace_logits,
    require_cache,
    require_continued,
    require_generation,
    require_positions,
)
from sah.attention import DenseAttention, SparseAttention
from sah.attention.eviction.reconstruction import Reconstructed, Reconstruction
from sah.attention.eviction.remembering import remembering
from sah.attention.interface import attention_replaced, layer_number
from sah.attention.keys_read import KeysRead
from sah.attention.layers import full_attention_layers
from sah.attention.prefill.reading import SparsePrefill, reading
from sah.errors import ConfigurationError
from sah.models.cache import held_bytes
from sah.models.eviction import reconstruct
from sah.models.language_model import LanguageModel

_MARK = "_sah_attached"


def is_attached(model: PreTrainedModel) -> bool:
    """Whether an attention is attached to the model."""
    return hasattr(model.forward, _MARK)


class AttachedAttention:
    """Measures of all queries after a context, collected while an attention is attached."""

    def __init__(
        self,
        model: LanguageModel,
        attention: DenseAttention | SparseAttention,
        *,
        seed: int,
        dense_question: bool,
    ) -> None:
        """Prepare; nothing in the model is changed yet.

        Args:
            model: that passed the gate.
            attention: to run in it.
            seed: of what it draws.
            dense_question: whether passes over several tokens are dense.
        """
        self.attention = attention
        """The attention that runs, with all its values."""
        self._checked = model
        self._model: Any = model.model
        self._seed = seed
        self._dense_question = dense_question
        self._is_open = False
        self._full = sorted(full_attention_layers(self._model.config))
        self._live: weakref.WeakSet[CachedRows] = weakref.WeakSet()
        self._read: list[KeysRead] = []
        """Of rows whose cache is gone, like `_resident`."""
        self._resident: list[float] = []
        self._prefill_density: list[float] = []
        self._sparse = SparsePrefill.of(attention, self._model.config, seed=seed)
        self._is_repeating = False
        """Whether the model repeats a context, with its own attention."""
        # Before the model's forward pass is replaced: a cache of one token is measured by it.
        self._bytes_per_token = model.cache_bytes_per_token

    def density(self) -> float | None:
        """Return the share of the visible keys that a query head selects.

        The mean over layers, heads and queries after a context, of all rows and all calls inside
        the block, as `density` of an experiment; evicted keys count as visible. In a batch, the
        queries of a row that has ended count until the last row ends.

        Returns:
            None if no query has been read after a context yet.
        """
        return self._mean("density")

    def rows_read(self) -> float | None:
        """Return the share of the key-value rows that any query head of a group selects.

        The mean and None as in `density`.
        """
        return self._mean("rows_read")

    def resident(self) -> float | None:
        """Return the bytes held of the contexts as a share of their dense caches.

        Key indexes included; the mean over the rows. Where keys are evicted while decoding: of
        the whole sequence, at the end of the rows.

        Returns:
            None if no query has been read after a context yet.
        """
        if isinstance(self.attention, DenseAttention):
            return 1.0
        rows = [row for live in self._live for row in live.rows if row.session.calls]
        found = [*self._resident, *(row.resident(self._checked.cache_bytes) for row in rows)]
        return sum(found) / len(found) if found else None

    def prefill_density(self) -> float | None:
        """Return the share of the visible pairs of query and key that the contexts' queries read.

        1 without a pattern; the mean over the rows.

        Returns:
            None if no query has been read after a context yet.
        """
        if isinstance(self.attention, DenseAttention):
            return 1.0
        rows = [row for live in self._live for row in live.rows if row.session.calls]
        found = [*self._prefill_density, *(row.prefill_density for row in rows)]
        return sum(found) / len(found) if found else None

    def _mean(self, name: str) -> float | None:
        if isinstance(self.attention, DenseAttention):
            return 1.0
        read = [*self._read, *(one for live in self._live for one in live.keys_read())]
        queries = sum(one.queries for one in read)
        return sum(getattr(one, name) * one.queries for one in read) / queries if queries else None

    @property
    def _prefills(self) -> str | None:
        """What the attention does when it prefills; None if the model's own attention does all."""
        assert isinstance(self.attention, SparseAttention)
        if self._sparse is not None:
            return "reads the context by a pattern"
        if self.attention.witness is None:
            return None
        does = "evicts keys" if self.attention.evict else "rewrites keys and values"
        return f"{does} at the end of the prefill"

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Replace the model's forward pass; restore everything on exit."""
        if isinstance(self.attention, DenseAttention):
            yield
            return
        forward, generate = self._model.forward, self._model.generate
        config, every = (
            self._model.config,
            replace(self.attention, dense_layers="0::1", layers=None),
        )
        self._local = RowSession(self.attention, seed=self._seed, config=config)
        self._dense = RowSession(every, seed=self._seed, config=config)
        # Both may be attributes of the instance already, as accelerate's hooks are.
        before = {name: vars(self._model).get(name) for name in ("forward", "generate")}
        self._forward = forward
        self._names = [*inspect.signature(forward).parameters]

        @functools.wraps(forward)
        def attached(*args: Any, **kwargs: Any) -> Any:
            if self._is_repeating:
                return forward(*args, **kwargs)
            named = dict(zip(self._names, args, strict=False))
            # Tensors of inference mode could not be appended to outside of it.
            with torch.inference_mode(False), torch.no_grad():
                return self._pass(named | kwargs)

        @functools.wraps(generate)
        def checked(*args: Any, **kwargs: Any) -> Any:
            require_generation(self._model, args, kwargs)
            return generate(*args, **kwargs)

        setattr(attached, _MARK, True)
        self._model.forward, self._model.generate = attached, checked
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False
            for name, own in before.items():
                if own is None:
                    delattr(self._model, name)
                else:
                    setattr(self._model, name, own)

    def _pass(self, call: dict[str, Any]) -> Any:
        """Run one forward pass: a prefill of an empty cache, or the continuation of another."""
        cache = require_cache(self._model, call)
        rows = next((one.rows for one in cache.layers if isinstance(one, RowsLayer)), None)
        if rows is None and cache.get_seq_length() == 0:
            return self._prefill(call, cache)
        if rows is None:
            rows = self._adopt(call, cache)
        return self._continue(call, cache, rows)

    def _prefill(self, call: dict[str, Any], cache: DynamicCache) -> Any:
        """Read the contexts as the attention prefills them, then evict and rewrite."""
        padding = left_padding(call)
        if self._prefills is None:
            output = self._forward(**call)
            self._take(cache, padding)
            return output
        require_positions(call, padding)
        if padding == [0]:
            output, read = self._read_row(call)
            self._take(cache, padding, read)
            return output
        inputs = own_inputs(call, padding, has_pattern=self._sparse is not None)
        windows = [] if self._sparse is None else window_layers(cache, self._full)
        output = self._forward(**call)
        # A witness of the padded batch would include the padding, and so would a pattern.
        rows = []
        for number, own in enumerate(inputs):
            single = DynamicCache(config=self._model.config)
            own |= {"past_key_values": single, "use_cache": True}
            accepted = filter(self._checked.accepts, own)
            alone, read = self._read_row({name: own[name] for name in accepted})
            if self._sparse is not None:
                replace_logits(output, number, alone)
                replace_windows(cache, number, single, windows)
            rows += self._rows(single, [0], read)
        self._begin(cache, rows, padding, cache.get_seq_length())
        return output

    def _read_row(self, call: dict[str, Any]) -> tuple[Any, ReadPrefill]:
        """Read one row without padding; return the output, and what was noted beside it."""
        assert isinstance(self.attention, SparseAttention)
        witness, pairs, witnessed = self.attention.witness, None, {}
        with ExitStack() as stack:
            if self._sparse is not None:
                pairs = stack.enter_context(reading(self._model, self._sparse))
            # Wraps whatever attention function is in place, so it comes second.
            if witness is not None:
                witnessed = stack.enter_context(remembering(self._model, witness))
            output = self._forward(**call)
        return output, ReadPrefill(
            witnessed=witnessed,
            reconstructions=self._repeated(call),
            density=1.0 if pairs is None else pairs.density(),
        )

    def _repeated(self, call: dict[str, Any]) -> dict[Reconstruction, Reconstructed]:
        """Let the model repeat the context of one row, if the evictor asks for it (KVzip)."""
        assert isinstance(self.attention, SparseAttention)
        witness, model = self.attention.witness, self._checked
        if witness is None or not witness.reconstructions:
            return {}
        if call.get("input_ids") is None:
            raise ConfigurationError(
                f"{self.attention.name!r} lets the model repeat the tokens of the context, but the "
                "prefill got inputs_embeds; give input_ids"
            )
        prompt = model.prompts.of_context(call["input_ids"][0].tolist())
        self._is_repeating = True
        try:
            context = model.prefill(
                prompt.context_ids, reserve_tokens=0, witness=witness, sparse=self._sparse
            )
            for asked in witness.reconstructions:
                reconstruct(model, context, prompt, asked)
        finally:
            self._is_repeating = False
        return context.reconstructions

    def _adopt(self, call: dict[str, Any], cache: DynamicCache) -> CachedRows:
        """Continue a cache that was filled outside of the block."""
        assert isinstance(self.attention, SparseAttention)
        if self._prefills is not None:
            raise ConfigurationError(
                f"{self.attention.name!r} {self._prefills}, but this cache of "
                f"{cache.get_seq_length()} tokens was filled outside of `with sah.attach(…)`; "
                "prefill it inside"
            )
        return self._take(cache, left_padding(call, columns=cache.get_seq_length()))

    def _take(
        self, cache: DynamicCache, padding: Sequence[int], read: ReadPrefill | None = None
    ) -> CachedRows:
        length = cache.get_seq_length()
        return self._begin(cache, self._rows(cache, padding, read), padding, length)

    def _rows(
        self, cache: DynamicCache, padding: Sequence[int], read: ReadPrefill | None
    ) -> list[Row]:
        assert isinstance(self.attention, SparseAttention)
        config = self._model.config
        return [
            row_of(own, read or ReadPrefill(), self.attention, config, seed=self._seed)
            for own in taken(cache, self._full, padding, config)
        ]

    def _begin(
        self, cache: DynamicCache, rows: Sequence[Row], padding: Sequence[int], length: int
    ) -> CachedRows:
        """Put the rows in place of the full-attention layers of the cache, of this length."""
        cached = CachedRows(rows, padding, is_open=lambda: self._is_open, on_copy=self._count)
        self._count(cached)
        layers: list[Any] = cache.layers
        others = [layer for number, layer in enumerate(layers) if number not in self._full]
        for row in rows:
            row.other_bytes = sum(map(held_bytes, others)) / len(rows)
        for number in self._full:
            layers[number] = RowsLayer(cached, layers[number].keys, length)
        return cached

    def _count(self, rows: CachedRows) -> None:
        """Count what the rows read, now and after their cache is gone."""
        self._live.add(rows)
        weakref.finalize(rows, self._fold, list(rows.rows)).atexit = False

    def _fold(self, rows: Sequence[Row]) -> None:
        at_work = [row for row in rows if row.session.calls]
        self._read += [read for row in at_work if (read := row.session.keys_read()) is not None]
        self._resident += [row.resident(self._checked.cache_bytes) for row in at_work]
        self._prefill_density += [row.prefill_density for row in at_work]

    def _continue(self, call: dict[str, Any], cache: DynamicCache, rows: CachedRows) -> Any:
        """Run a question or a decode step under the attention."""
        rows.require_open()
        queries = require_continued(call, cache, rows.padding)
        if queries > 1 and self._checked.reads_single_tokens:
            raise ConfigurationError(
                f"{type(self._model).__name__} continues its cache correctly by one token at a "
                f"time only, and this pass has {queries}; prefill the whole prompt at once"
            )
        rows.begin_step(is_question=queries > 1)
        dense = self._dense if queries > 1 and self._dense_question else None

        def attend(
            module: torch.nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor | None = None,
            **kwargs: Any,
        ) -> Any:
            if layer_number(module) not in self._full:
                return self._local._forward(module, query, key, value, attention_mask, **kwargs)
            if kwargs.get("sliding_window") is not None:
                raise ConfigurationError(
                    f"{type(module).__name__} passes a sliding window in a layer that attends to "
                    "every earlier token by the configuration; choose another model"
                )
            return rows.attend(module, query, key, value, dense=dense, **kwargs), None

        with attention_replaced(self._model, attend, sdpa_mask):
            return self._forward(**call)
