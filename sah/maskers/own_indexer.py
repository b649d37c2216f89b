"""The selection of the model's own indexer, for models that are trained with one."""

from dataclasses import dataclass
from typing import ClassVar

from sah.attention import AttentionInputs, AttentionMask


@dataclass(frozen=True, kw_only=True)
class OwnIndexer:
    """Add the keys that the model's own indexer selects for each query.

    The only masker of its attention, and the context is prefilled with the indexer, too. Works on
    models that hand the selection to their attention function or its mask, such as DeepSeek-V3.2
    (arXiv:2512.02556); layers without an indexer stay dense.
    """

    uses_indexer: ClassVar[bool] = True

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        assert inputs.indexed is not None, "the session hands over the selection"
        return mask.add(inputs.indexed)
