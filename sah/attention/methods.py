"""What an attention configuration is: dense, or a fold of maskers. Configuration only, no state."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask


class Masker(Protocol):
    """Adds keys to what each query reads, out of the mask's candidates.

    Never selects an invisible key, never changes the mask it was given, and spends its
    budget only on keys that are not selected yet. Hashable, so that its key index can
    be found again; a frozen dataclass is. One that looks at `inputs.visibility` alone may say
    `positions_alone: ClassVar = True`: if no other comes before it, it is asked once a step and
    not once a layer.
    """

    def __hash__(self) -> int:
        """Equal maskers hash alike."""

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
    layers: Mapping[str, Mapping[str, Masker] | Literal["dense"]] | None = None
    """Other maskers for some layers, by layer or range of layers: `{0-1: dense, 2-5: {...}}`."""
    workspace_bytes: int = 2**28
    """Queries are computed in chunks whose scores and masks take at most about this much."""

    def __post_init__(self) -> None:
        if not self.maskers:
            raise ValueError(
                f"sparse_attention {self.name!r} has no masker and would read nothing; add one: "
                "+masker@sparse_attention.maskers.NAME=OPTION, or use sparse_attention=dense"
            )
        _require_maskers("maskers", self.maskers)
        if any(not isinstance(layer, int) or layer < 0 for layer in self.dense_layers):
            raise ValueError(
                f"dense_layers must be layer numbers from 0 on, got {list(self.dense_layers)}"
            )
        if self.workspace_bytes < 2**20:
            raise ValueError(f"workspace_bytes must be at least 2**20, got {self.workspace_bytes}")
        self._of_layers  # noqa: B018 - checks them

    def maskers_at(self, layer: int) -> Mapping[str, Masker] | None:
        """The maskers of a layer; None where it keeps the model's own attention."""
        return self._of_layers.get(layer, self.maskers)

    @property
    def named_layers(self) -> Collection[int]:
        """The layers that the configuration says something about."""
        return self._of_layers.keys()

    def select(self, inputs: AttentionInputs) -> AttentionMask:
        """Fold the maskers of the layer over an empty mask."""
        maskers = self.maskers_at(inputs.layer_idx)
        assert maskers is not None, f"layer {inputs.layer_idx} is dense"
        # What the first maskers make of positions alone is the same in every layer.
        first = tuple(itertools.takewhile(_looks_at_positions_alone, maskers.values()))
        heads = inputs.query.shape[1]
        mask = inputs.visibility.once((heads, first), lambda: _fold(first, inputs))
        for masker in itertools.islice(maskers.values(), len(first), None):
            mask = masker(inputs, mask)
        return mask

    @cached_property
    def _of_layers(self) -> dict[int, Mapping[str, Masker] | None]:
        """What `dense_layers` and `layers` say about single layers; None is dense."""
        found: dict[int, Mapping[str, Masker] | None] = dict.fromkeys(self.dense_layers)
        for span, maskers in (self.layers or {}).items():
            if maskers != "dense":
                if not isinstance(maskers, Mapping) or not maskers:
                    raise ValueError(
                        f"sparse_attention.layers.{span} must be `dense` or name its maskers, "
                        f"got {maskers!r}"
                    )
                _require_maskers(f"layers.{span}", maskers)
            for layer in _layers_in(str(span)):
                if layer in found:
                    raise ValueError(
                        f"sparse_attention.layers.{span}: layer {layer} is named twice (in layers "
                        "or dense_layers); name it once"
                    )
                found[layer] = None if isinstance(maskers, str) else maskers
        return found

    def queries_per_chunk(self, inputs: AttentionInputs) -> int:
        """Queries whose scores, masks and temporaries fit into `workspace_bytes`."""
        batch, heads = inputs.query.shape[:2]
        # Scores, ranked scores, probabilities and noise in float32, and four masks.
        per_query = batch * heads * inputs.key.shape[2] * (4 * 4 + 4)
        return max(1, self.workspace_bytes // per_query)


def _looks_at_positions_alone(masker: Masker) -> bool:
    return getattr(masker, "positions_alone", False)


def _fold(maskers: Sequence[Masker], inputs: AttentionInputs) -> AttentionMask:
    mask = AttentionMask.empty(inputs)
    for masker in maskers:
        mask = masker(inputs, mask)
    return mask


def _require_maskers(field: str, maskers: Mapping[str, Masker]) -> None:
    for name, masker in maskers.items():
        if not callable(masker):
            raise ValueError(f"sparse_attention.{field}.{name} is no masker: {masker!r}")


def _layers_in(span: str) -> range:
    """The layers of `5` or `2-29`, both ends included.

    Or `L2-29`: where Hydra's command line takes a path, a part of it must begin with a letter.
    """
    match = re.fullmatch(r"[Ll]?(\d+)(?:-(\d+))?", span)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise ValueError(
            f"sparse_attention.layers: {span!r} is neither a layer nor a range of layers such as "
            "2-29"
        )
    return range(first, last + 1)
