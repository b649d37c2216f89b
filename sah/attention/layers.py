"""The kind of each layer of a transformers model: which ones attend to every earlier token."""

from transformers import PreTrainedConfig
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    get_layer_types_and_kwargs,
)

from sah.attention.methods import DenseAttention, SparseAttention
from sah.errors import ConfigurationError


def full_attention_layers(config: PreTrainedConfig) -> frozenset[int]:
    """Return the numbers of the layers whose queries attend to every earlier token.

    Layers whose keys the model's own indexer selects are among them: its selection is another
    sparse attention (`sah.attention.indexer`). The others are sliding-window or chunked layers and
    layers without attention (convolutions, state-space models, plain MLPs). Not every architecture
    tells its attention function which kind a layer is, so the kind is read from the configuration,
    as transformers' cache does.
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


def selecting_layers(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the kinds of layers that select or compress keys in a way that cannot be switched off.

    Each once, sorted. Sparse attention on top of them would ignore what the model does itself.
    """
    kinds = {kind for kind, cached_as in _kinds(config) if _selects(cached_as)}
    return tuple(sorted(kinds))


def check_layers(attention: SparseAttention, config: PreTrainedConfig) -> None:
    """Check that a model has the layers that an attention names, and one that can be sparse.

    Raises:
        ConfigurationError: naming them.
    """
    check_named_layers(attention, config)
    if all(attention.maskers_at(n) is None for n in full_attention_layers(config)):
        raise nothing_to_do(attention)


def check_named_layers(attention: SparseAttention, config: PreTrainedConfig) -> None:
    """Check that a model has the layers that dense_layers or layers names.

    Raises:
        ConfigurationError: naming those that it lacks.
    """
    layers = config.get_text_config(decoder=True).num_hidden_layers
    beyond = [number for number in attention.named_layers if number >= layers]
    if beyond:
        raise ConfigurationError(
            f"sparse_attention {attention.name!r} names the layers {beyond} (in dense_layers or "
            f"layers) of a model whose layers are 0 to {layers - 1}"
        )


def nothing_to_do(attention: SparseAttention | DenseAttention) -> ConfigurationError:
    """Return the error of an attention without a layer to be sparse in."""
    return ConfigurationError(
        f"sparse_attention {attention.name!r} has no layer to work on: all layers are local "
        "(sliding window, chunked) or kept dense; use sparse_attention=dense"
    )


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
