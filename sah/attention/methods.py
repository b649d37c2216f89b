"""What an attention configuration is: dense, or a fold of maskers. Configuration only, no state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask


class Masker(Protocol):
    """Adds keys to what each query reads, out of the mask's candidates.

    Never selects an invisible key, never changes the mask it was given, and spends its
    budget only on keys that are not selected yet. Hashable, so that its key index can
    be found again; a frozen dataclass is.
    """

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        """Return a mask that selects what the given one selects, and more."""


@dataclass(frozen=True, kw_only=True)
class DenseAttention:
    """The model's own attention, untouched."""

    name: str = "dense"


@dataclass(frozen=True, kw_only=True)
class SparseAttention:
    """Maskers, applied in order, each seeing what the ones before selected."""

    name: str
    """Names the output directory and the row in reports."""
    maskers: Mapping[str, Masker]
    dense_layers: Sequence[int] = ()
    """Layers that keep the model's own attention (Quest and MagicPIG keep 0 and 1)."""
    workspace_bytes: int = 2**28
    """Queries are computed in chunks whose scores and masks take at most about this much."""

    def __post_init__(self) -> None:
        if not self.maskers:
            raise ValueError(
                f"sparse_attention {self.name!r} has no masker and would read nothing; add one: "
                "+masker@sparse_attention.maskers.NAME=OPTION, or use sparse_attention=dense"
            )
        for name, masker in self.maskers.items():
            if not callable(masker):
                raise ValueError(f"sparse_attention.maskers.{name} is no masker: {masker!r}")
        if any(not isinstance(layer, int) or layer < 0 for layer in self.dense_layers):
            raise ValueError(
                f"dense_layers must be layer numbers from 0 on, got {list(self.dense_layers)}"
            )
        if self.workspace_bytes < 2**20:
            raise ValueError(f"workspace_bytes must be at least 2**20, got {self.workspace_bytes}")

    def select(self, inputs: AttentionInputs) -> AttentionMask:
        """Fold the maskers over an empty mask."""
        mask = AttentionMask.empty(inputs)
        for masker in self.maskers.values():
            mask = masker(inputs, mask)
        return mask

    def queries_per_chunk(self, inputs: AttentionInputs) -> int:
        """Queries whose scores, masks and temporaries fit into `workspace_bytes`."""
        batch, heads = inputs.query.shape[:2]
        # Scores, ranked scores, probabilities and noise in float32, and four masks.
        per_query = batch * heads * inputs.key.shape[2] * (4 * 4 + 4)
        return max(1, self.workspace_bytes // per_query)
