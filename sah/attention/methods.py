"""Attention configurations: dense, or a sequence of maskers. Immutable and stateless."""

import functools
import inspect
import itertools
import operator
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, Protocol

from transformers import PreTrainedConfig

from sah.attention.eviction.evictor import DecodingEvictor, Evictor
from sah.attention.eviction.rewriter import Rewriter
from sah.attention.eviction.witness import Witness
from sah.attention.inputs import AttentionInputs
from sah.attention.layers import full_attention_layers, indexed_layers
from sah.attention.mask import AttentionMask
from sah.attention.prefill.pattern import Pattern
from sah.errors import ConfigurationError
from sah.validation import check_types


class Masker(Protocol):
    """Selects keys for each query to read, out of the mask's candidates.

    A masker never selects an invisible key, never changes the mask it was given, and spends its
    budget only on keys that are not selected yet. It is hashable, as frozen dataclasses are,
    because key indexes are looked up by masker. A masker that depends on `inputs.visibility`
    alone may set `positions_only: ClassVar = True`: if only such maskers precede it, it runs once
    per step instead of once per layer. `uses_indexer: ClassVar = True` switches the model's own
    indexer on.

    `batched: ClassVar = True` says that it also works on sequences of different lengths at once
    (`AttentionInputs.rows`): it reads the positions of the queries from `inputs.query_position`,
    nothing from `first_position`, `context_length`, `seed` or `kept`, and its index, if it has one,
    is a `StackableIndex`. Without it, the rows of a batch are computed one by one. A subclass does
    not inherit it.
    """

    def __hash__(self) -> int:
        """Return the same hash for equal maskers."""

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        """Return a mask that adds keys to the given one."""


@dataclass(frozen=True, kw_only=True)
class DenseAttention:
    """The model's own attention to all visible keys; its own indexer, if it has one, is off."""

    name: str = "dense"
    uses_indexer: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What the budget of an attention was matched to, and on what (`sah match`)."""

    metric: Literal["resident", "density", "rows_read"]
    target: float
    """Value of the metric that was asked for."""
    measured: float
    """Its mean over the tuning split."""
    model: str
    """Name of the model that it was measured on."""
    benchmark: str
    """Name of the benchmark whose tuning split it was measured on."""
    contexts: Sequence[str]
    """Hash of each context in the tuning split: none of them may be measured afterwards."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class SparseAttention:
    """How a context is read, what the cache keeps of it and stores for it, what later queries read.

    The pattern works while the context is prefilled. The evictor and then the rewriter run at its
    end, and a `DecodingEvictor` after every later query, too. Maskers run in order for every later
    query; each sees the keys that the earlier ones selected. Without maskers, queries read all that
    is kept.
    """

    name: str
    """Name of the output directory and of the row in reports."""
    maskers: Mapping[str, Masker] = field(default_factory=dict)
    prefill: Mapping[str, Pattern] = field(default_factory=dict)
    """At most one, by name; it decides what the context's own queries read, in the layers that are
    not dense. Without one, the context is read by the model's own attention."""
    evict: Mapping[str, Evictor] = field(default_factory=dict)
    """At most one, by name; it works on the layers that are not dense."""
    rewrite: Mapping[str, Rewriter] = field(default_factory=dict)
    """At most one, by name; it changes the keys and values that stay, in the same layers."""
    dense_layers: Sequence[int] | str = ()
    """Layers that keep the model's own attention (Quest keeps 0 and 1).

    A text such as `0::16` names every 16th layer from 0 on, as many as the model has (MagicPIG).
    """
    layers: Mapping[str, Mapping[str, Masker] | Literal["dense"]] | None = None
    """Maskers of single layers or ranges, in place of `maskers`: `{0-1: dense, 2-5: {...}}`."""
    workspace_bytes: int = 2**28
    """Approximate memory limit of scores and masks, in bytes; queries are chunked to fit it."""
    matched: Matched | None = None
    """Set in presets that `sah match` saves; it changes no answer."""

    def __post_init__(self) -> None:
        if not (self.maskers or self.prefill or self.evict or self.rewrite):
            raise ValueError(
                f"sparse_attention {self.name!r} has no masker, pattern, evictor or rewriter; add "
                "one with +masker@sparse_attention.maskers.NAME=OPTION, "
                "+pattern@sparse_attention.prefill.NAME=OPTION, "
                "+evictor@sparse_attention.evict.NAME=OPTION or "
                "+rewriter@sparse_attention.rewrite.NAME=OPTION, or use sparse_attention=dense"
            )
        _require_maskers("maskers", self.maskers)
        if len(self.prefill) > 1:
            raise ValueError(
                f"sparse_attention.prefill has {len(self.prefill)} patterns "
                f"({', '.join(self.prefill)}), but one decides what the context's queries read; "
                "remove the others with ~sparse_attention.prefill.NAME"
            )
        if len(self.evict) > 1:
            raise ValueError(
                f"sparse_attention.evict has {len(self.evict)} evictors ({', '.join(self.evict)}), "
                "but one decides what the cache keeps; remove the others with "
                "~sparse_attention.evict.NAME"
            )
        if len(self.rewrite) > 1:
            raise ValueError(
                f"sparse_attention.rewrite has {len(self.rewrite)} rewriters "
                f"({', '.join(self.rewrite)}), but one decides what the cache stores; remove the "
                "others with ~sparse_attention.rewrite.NAME"
            )
        if self.rewrite and isinstance(self.evictor, DecodingEvictor):
            raise ValueError(
                f"sparse_attention.evict.{next(iter(self.evict))} evicts while decoding, but "
                f"rewrite.{next(iter(self.rewrite))} packs the context's keys in groups that stay; "
                "remove one of them, or choose an evictor that works at the context's end"
            )
        _require_method("prefill", "a pattern", self.prefill, "reads", 1)
        _require_method("evict", "an evictor", self.evict, "at_context", 1)
        _require_method("rewrite", "a rewriter", self.rewrite, "at_context", 2)
        if self.prefill and self.witness is not None and self.witness.received:
            raise ValueError(
                f"sparse_attention.evict.{next(iter(self.evict))} sums the attention of all "
                f"queries of the context, but prefill.{next(iter(self.prefill))} computes only a "
                "part of it; remove one of them, or choose an evictor that scores keys by the last "
                "queries, such as snapkv"
            )
        if isinstance(self.dense_layers, str):
            self._dense_steps  # noqa: B018 - checks them
        elif any(not isinstance(layer, int) or layer < 0 for layer in self.dense_layers):
            raise ValueError(
                f"dense_layers must be layer numbers from 0 on, got {list(self.dense_layers)}"
            )
        if self.workspace_bytes < 2**20:
            raise ValueError(f"workspace_bytes must be at least 2**20, got {self.workspace_bytes}")
        self._layer_maskers  # noqa: B018 - checks them
        if self.uses_indexer:
            self._require_nothing_else()

    def _require_nothing_else(self) -> None:
        name = next((name for name, one in self.maskers.items() if _uses_indexer(one)), None)
        others = [f"maskers.{other}" for other in self.maskers if other != name]
        others += [f"prefill.{other}" for other in self.prefill]
        others += [f"evict.{other}" for other in self.evict]
        others += [f"rewrite.{other}" for other in self.rewrite]
        others += [field for field in ("dense_layers", "layers") if getattr(self, field)]
        if others:
            raise ValueError(
                f"sparse_attention {self.name!r} reads by the model's own indexer in every layer "
                f"that has one, from the context on, which does not go together with "
                f"{', '.join(others)}; use sparse_attention=native as it is, or remove the indexer"
            )

    def maskers_at(self, layer: int) -> Mapping[str, Masker] | None:
        """Return the maskers of a layer, or None if it keeps the model's own attention."""
        if layer in self._layer_maskers:
            return self._layer_maskers[layer]
        return None if layer in self._dense_steps else self.maskers

    @cached_property
    def uses_indexer(self) -> bool:
        """Whether the model's own indexer selects the keys; otherwise it is switched off."""
        by_layer = [maskers for maskers in self._layer_maskers.values() if maskers is not None]
        return any(
            _uses_indexer(one) for maskers in (self.maskers, *by_layer) for one in maskers.values()
        )

    @property
    def pattern(self) -> Pattern | None:
        """The one pattern; None if the context is read by the model's own attention."""
        return next(iter(self.prefill.values()), None)

    @property
    def evictor(self) -> Evictor | None:
        """The one evictor; None if all keys stay."""
        return next(iter(self.evict.values()), None)

    @property
    def rewriter(self) -> Rewriter | None:
        """The one rewriter; None if keys and values stay exact."""
        return next(iter(self.rewrite.values()), None)

    @property
    def witness(self) -> Witness | None:
        """What evictor and rewriter need of the prefill; None without both."""
        needed = [one.witness for one in (self.evictor, self.rewriter) if one is not None]
        return functools.reduce(operator.or_, needed) if needed else None

    @property
    def after_context(self) -> "DenseAttention | SparseAttention":
        """The attention of the queries after the context: dense if only the prefill is sparse."""
        layers = (self.layers or {}).values()
        if self.maskers or self.witness is not None or any(one != "dense" for one in layers):
            return self
        return DenseAttention(name=self.name)

    @property
    def named_layers(self) -> Collection[int]:
        """Layers that `dense_layers` or `layers` names by number."""
        return self._layer_maskers.keys()

    def check(self, config: PreTrainedConfig) -> None:
        """Check that the attention can work on a model, given the model's configuration.

        Raises:
            ConfigurationError: if dense_layers or layers names a layer that the model does not
                have, if no layer is left to be sparse, or if the model's own indexer is missing or
                in the way.
        """
        self.check_named_layers(config)
        self._check_indexer(config)
        if all(self.maskers_at(number) is None for number in full_attention_layers(config)):
            raise self.nothing_to_do()

    def check_named_layers(self, config: PreTrainedConfig) -> None:
        """Check that the model has the layers that dense_layers and layers name.

        Raises:
            ConfigurationError: naming those that it lacks.
        """
        layers = config.get_text_config(decoder=True).num_hidden_layers
        beyond = [number for number in self.named_layers if number >= layers]
        if beyond:
            raise ConfigurationError(
                f"sparse_attention {self.name!r} names the layers {beyond} (in dense_layers or "
                f"layers) of a model whose layers are 0 to {layers - 1}"
            )

    def _check_indexer(self, config: PreTrainedConfig) -> None:
        kind, indexed = config.model_type, indexed_layers(config)
        if self.uses_indexer and not indexed:
            raise ConfigurationError(
                f"sparse_attention {self.name!r} reads by the model's own indexer, but a model of "
                f"type {kind!r} has none; choose another attention, or a model with an indexer, "
                "such as deepseek_v32"
            )
        if indexed and self.witness is not None:
            stage, verb = ("evict", "evicted") if self.evict else ("rewrite", "rewritten")
            raise ConfigurationError(
                f"sparse_attention.{stage}: the model's own indexer (model type {kind!r}) caches "
                f"keys beside those of attention, in layers {sorted(indexed)}, where they cannot "
                f"be {verb}; choose maskers, sparse_attention=native, or another model"
            )

    def batched_at(self, layer: int) -> bool:
        """Whether a layer's maskers and decoding evictor work on several sequences at once."""
        maskers = self.maskers_at(layer)
        methods: list[object] = [] if maskers is None else list(maskers.values())
        if maskers is not None and isinstance(self.evictor, DecodingEvictor):
            methods.append(self.evictor)
        return all(vars(type(method)).get("batched", False) for method in methods)

    def nothing_to_do(self) -> ConfigurationError:
        """Return the error of an attention without a layer to work on."""
        return ConfigurationError(
            f"sparse_attention {self.name!r} has no layer to work on: all layers are local "
            "(sliding window, chunked) or kept dense; set sparse_attention.dense_layers=[] if that "
            "keeps them dense, or use sparse_attention=dense"
        )

    def select(self, inputs: AttentionInputs) -> AttentionMask:
        """Apply the maskers of the layer in order, starting from an empty mask."""
        maskers = self.maskers_at(inputs.layer_idx)
        assert maskers is not None, f"layer {inputs.layer_idx} is dense"
        if not maskers:
            return all_visible(inputs)
        # Leading maskers that depend on positions only give the same mask in every layer.
        first = tuple(itertools.takewhile(_uses_positions_only, maskers.values()))
        heads = inputs.query.shape[1]
        mask = inputs.visibility.cached((heads, first), lambda: _fold(first, inputs))
        for masker in itertools.islice(maskers.values(), len(first), None):
            mask = masker(inputs, mask)
        return mask

    @cached_property
    def _dense_steps(self) -> range:
        """Layers that `dense_layers` names by a step, beyond those of any model."""
        if not isinstance(self.dense_layers, str):
            return range(0)
        match = re.fullmatch(r"(\d+)::([1-9]\d*)", self.dense_layers)
        if match is None:
            raise ValueError(
                "dense_layers must be a list of layers such as [0, 1], or every n-th layer as "
                f"FIRST::N, such as 0::16; got {self.dense_layers!r}"
            )
        return range(int(match[1]), sys.maxsize, int(match[2]))

    @cached_property
    def _layer_maskers(self) -> dict[int, Mapping[str, Masker] | None]:
        """Maskers of the layers that `dense_layers` and `layers` number; None means dense."""
        found: dict[int, Mapping[str, Masker] | None] = {}
        if not isinstance(self.dense_layers, str):
            found |= dict.fromkeys(self.dense_layers)
        for span, maskers in (self.layers or {}).items():
            if maskers != "dense":
                if not isinstance(maskers, Mapping) or not maskers:
                    raise ValueError(
                        f"sparse_attention.layers.{span} must be `dense` or name its maskers, "
                        f"got {maskers!r}"
                    )
                _require_maskers(f"layers.{span}", maskers)
            for layer in _layers_in(str(span)):
                if layer in found or layer in self._dense_steps:
                    raise ValueError(
                        f"sparse_attention.layers.{span}: layer {layer} is named twice (in layers "
                        "or dense_layers); name it once"
                    )
                found[layer] = None if isinstance(maskers, str) else maskers
        return found

    def queries_per_chunk(self, inputs: AttentionInputs) -> int:
        """Return how many queries fit into `workspace_bytes` with their temporaries."""
        batch, heads = inputs.query.shape[:2]
        # Per key: scores, sorted scores, probabilities and noise in float32, and four masks.
        per_query = batch * heads * inputs.key.shape[2] * (4 * 4 + 4)
        return max(1, self.workspace_bytes // per_query)


def _uses_positions_only(masker: Masker) -> bool:
    return getattr(masker, "positions_only", False)


def _uses_indexer(masker: Masker) -> bool:
    return getattr(masker, "uses_indexer", False)


def all_visible(inputs: AttentionInputs) -> AttentionMask:
    """Return the mask that selects every visible key."""
    mask = AttentionMask.empty(inputs)
    return mask.add(mask.visible)


def _fold(maskers: Sequence[Masker], inputs: AttentionInputs) -> AttentionMask:
    mask = AttentionMask.empty(inputs)
    for masker in maskers:
        mask = masker(inputs, mask)
    return mask


def _require_method(
    stage: str, kind: str, methods: Mapping[str, object], function_name: str, parameters: int
) -> None:
    for name, method in methods.items():
        function = getattr(method, function_name, None)
        if function is None or len(inspect.signature(function).parameters) != parameters:
            raise ValueError(f"sparse_attention.{stage}.{name} is not {kind}: {method!r}")


def _require_maskers(field: str, maskers: Mapping[str, Masker]) -> None:
    for name, masker in maskers.items():
        if not callable(masker):
            raise ValueError(f"sparse_attention.{field}.{name} is not a masker: {masker!r}")
        every = getattr(masker, "every", 1)
        if every > 1 and list(maskers.values()).count(masker) > 1:
            raise ValueError(
                f"sparse_attention.{field}.{name} equals another masker of {field} and would reuse "
                f"its selection (every={every}); merge the two into one, or set every=1"
            )


def _layers_in(span: str) -> range:
    """Parse `5` or `2-29`, both ends included.

    `L2-29` works too, because in Hydra's override paths each part must begin with a letter.
    """
    match = re.fullmatch(r"[Ll]?(\d+)(?:-(\d+))?", span)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise ValueError(
            f"sparse_attention.layers: {span!r} is neither a layer nor a range of layers such as "
            "2-29"
        )
    return range(first, last + 1)
