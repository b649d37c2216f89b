"""SnapKV with larger budgets in lower layers."""

from dataclasses import dataclass

from sah.attention.eviction.context_layer import ContextLayer
from sah.evictors.snapkv import SnapKV


@dataclass(frozen=True, kw_only=True)
class PyramidKV(SnapKV):
    """Keep what SnapKV keeps, more of it in lower layers (PyramidKV, arXiv:2406.02069).

    Budgets fall linearly from the first layer to the last, and their mean is the budget B of
    `tokens` or `fraction`. The last layer has B / beta keys. As in kvpress, the first has no more
    than the context without the window. Where B / beta is less than the window, kvpress gives
    every layer the same budget; here the last layer then has as many keys as the window. Where no
    pyramid fits between the window and the context, all layers have B.
    """

    beta: int = 20
    """The last layer's budget is this many times smaller than the mean; 20 as in kvpress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 1:
            raise ValueError(f"PyramidKV: beta must be at least 1, got {self.beta}")

    def budget(self, layer: ContextLayer) -> int:
        """Return the number of keys to keep in each head of this layer."""
        uniform = super().budget(layer)
        mean = layer.length * self.fraction if self.fraction is not None else float(uniform)
        least = max(mean / self.beta, float(self.window))
        most = 2 * mean - least
        if most > layer.length - self.window:
            most = float(layer.length - self.window)
            least = 2 * mean - most
        if most < least or layer.layers == 1:
            return uniform
        return round(most - layer.layer_idx * (most - least) / (layer.layers - 1))
