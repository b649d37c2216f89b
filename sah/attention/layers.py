"""The kind of each layer of a transformers model: which ones attend to every earlier token."""

from transformers import PreTrainedConfig
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    get_layer_types_and_kwargs,
)


def full_attention_layers(config: PreTrainedConfig) -> frozenset[int]:
    """Return the numbers of the layers whose queries attend to every earlier token.

    Layers whose keys the model's own indexer selects are among them: its selection is another
    sparse attention (`sah.attention.native.indexer`). The others are sliding-window or chunked
    layers and layers without attention (convolutions, state-space models, plain MLPs). Not every
    architecture tells its attention function which kind a layer is, so the kind is read from the
    configuration, as transformers' cache does.
    """
    full = (DynamicLayer, LinearAttentionAndFullAttentionLayer)
    return frozenset(
        n
        for n, (_, cached_as) in enumerate(_kinds(config))
        if cached_as in full or _has_indexer(cached_as)
    )


def indexed_layers(config: PreTrainedConfig) -> frozenset[int]:
    """Return the numbers of the layers in which the model's own indexer selects keys."""
    return frozenset(
        n for n, (_, cached_as) in enumerate(_kinds(config)) if _has_indexer(cached_as)
    )


def attention_layers(config: PreTrainedConfig) -> frozenset[int]:
    """Return the numbers of the layers that have attention of any kind."""
    return frozenset(
        n for n, (_, cached_as) in enumerate(_kinds(config)) if issubclass(cached_as, DynamicLayer)
    )


def has_chunks(config: PreTrainedConfig) -> bool:
    """Whether queries of some layers attend to the tokens of their own chunk only (Llama 4)."""
    return any(kind == "chunked_attention" for kind, _ in _kinds(config))


def selecting_layers(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the kinds of layers that select or compress keys in a way that cannot be switched off.

    Each once, sorted. Sparse attention on top of them would ignore what the model does itself.
    """
    kinds = {kind for kind, cached_as in _kinds(config) if _selects(cached_as)}
    return tuple(sorted(kinds))


def _selects(cached_as: type) -> bool:
    # Other kinds than transformers' own come with the code of one model.
    return cached_as.__module__ != DynamicLayer.__module__ and not _has_indexer(cached_as)


def _has_indexer(cached_as: type) -> bool:
    # MiniMax-M3's layers are cached by a class of its own; its indexer selects blocks of keys.
    kind = getattr(cached_as, "_layer_type", None)
    return cached_as is DynamicIndexedLayer or kind == "minimax_m3_sparse"


def _kinds(config: PreTrainedConfig) -> list[tuple[str, type]]:
    """Return the kind of each layer, and the class in which transformers caches it."""
    text = config.get_text_config(decoder=True)
    cached, _ = get_layer_types_and_kwargs(text)
    # A layer that reads another layer's keys caches nothing; its own kind is in `layer_types`.
    kinds = getattr(text, "layer_types", None) or cached
    return [
        (kind, DYNAMIC_LAYER_TYPE_MAPPING.get(kind, DYNAMIC_LAYER_TYPE_MAPPING["dummy"]))
        for kind in kinds
    ]
