"""Memory of the key indexes of a context."""

from collections.abc import Callable, Hashable, Mapping

from sah.attention.index import KeyIndex

Indexes = Mapping[int, Mapping[Hashable, KeyIndex]]
"""The indexes of each layer, by masker."""


def bytes_per_key(
    indexes: Indexes, maskers_at: Callable[[int], Mapping[str, Hashable] | None]
) -> dict[str, float]:
    """Return the size of each masker's index, in bytes per key: the mean over indexed layers.

    Args:
        indexes: of all layers.
        maskers_at: returns the maskers of a layer by name.
    """
    per_layer: dict[str, list[float]] = {}
    for layer, of_layer in indexes.items():
        for name, masker in (maskers_at(layer) or {}).items():
            index = of_layer.get(masker)
            if index is not None and index.length:
                per_layer.setdefault(name, []).append(index.nbytes / index.length)
    return {name: sum(values) / len(values) for name, values in per_layer.items()}


def bytes_of(indexes: Indexes, keys_at: Callable[[int], int] | None) -> float:
    """Return the size of all indexes in bytes.

    Args:
        indexes: of all layers.
        keys_at: returns how many keys of a layer count, from the first on; None: all.
    """
    total = 0.0
    for layer, of_layer in indexes.items():
        for index in of_layer.values():
            if index.length:
                share = 1.0 if keys_at is None else min(1.0, keys_at(layer) / index.length)
                total += index.nbytes * share
    return total
