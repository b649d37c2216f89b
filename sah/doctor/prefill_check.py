"""Check of sparse prefill: block-sparse attention computes what masked attention computes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from sah.attention import AttentionInputs, AttentionMask, SparseAttention
from sah.attention.prefill.pattern import Pattern, PrefillLayer, Reads
from sah.attention.prefill.reading import SparsePrefill, reading
from sah.attention.session import AttentionSession
from sah.models.gate import relative_difference
from sah.models.language_model import LanguageModel

_TOKENS = 512
"""Longest context that is compared; its masks are dense."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recording:
    """A pattern that remembers its answers, and a masker that reads what they say."""

    of: Pattern
    by_layer: dict[int, Reads] = field(default_factory=dict)

    def reads(self, layer: PrefillLayer) -> Reads:
        self.by_layer[layer.layer_idx] = self.of.reads(layer)
        return self.by_layer[layer.layer_idx]

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        queries = slice(inputs.first_position, inputs.first_position + inputs.query.shape[2])
        read = self.by_layer[inputs.layer_idx].mask(inputs.key.shape[2])[:, :, queries]
        return mask.add(read.to(inputs.key.device).expand(mask.selected.shape))


@torch.inference_mode()
def difference_from_masked_prefill(
    model: LanguageModel, attention: SparseAttention, context_ids: Sequence[int], *, seed: int
) -> float:
    """Return how much the context's logits differ between the two ways to compute a pattern.

    Args:
        model: a loaded model.
        attention: has a pattern.
        context_ids: at least one; the first 512 are read.
        seed: of the experiment.

    Returns:
        As `sah.models.gate.relative_difference`.
    """
    ids = context_ids[:_TOKENS]
    sparse = SparsePrefill.of(attention, model.model.config, seed=seed)
    assert sparse is not None
    recording = _Recording(of=sparse.pattern)
    with reading(model.model, replace(sparse, pattern=recording)):
        found = model.forward(ids, None, logits=len(ids))
    masked = SparseAttention(
        name="masked", maskers={"read": recording}, dense_layers=sorted(sparse.dense_layers)
    )
    session = AttentionSession(masked, seed=seed)
    session.begin_example("doctor")
    with session.attached(model.model):
        expected = model.forward(ids, None, logits=len(ids))
    return relative_difference(model, found[0], expected[0])
