"""Check of eviction: a compacted cache answers like the whole cache with the other keys masked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from sah.attention import AttentionInputs, AttentionMask, SparseAttention
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import Evictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.witness import Witness
from sah.attention.session import AttentionSession
from sah.models.gate import relative_difference
from sah.models.language_model import LanguageModel, PrefilledContext


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadingKept:
    """Read the kept keys out of the whole context, and all keys after it."""

    kept: Mapping[int, KeptKeys]

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        kept = self.kept[inputs.layer_idx]
        alive = torch.zeros(kept.key.shape[:3], dtype=torch.bool, device=kept.key.device)
        # Padding repeats the place of a kept key.
        alive.scatter_(2, kept.position, True)
        after = inputs.key.shape[2] - alive.shape[2]
        readable = pad(alive, (0, after), value=True).repeat_interleave(inputs.group_size, 1)
        return mask.add(readable.unsqueeze(2))


@dataclass(frozen=True, kw_only=True)
class _OfContext:
    """An evictor without what it does after the context."""

    of: Evictor

    @property
    def witness(self) -> Witness:
        return self.of.witness

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        return self.of.at_context(layer)


def difference_from_masked(
    model: LanguageModel,
    attention: SparseAttention,
    context: PrefilledContext,
    own: PrefilledContext,
    token_ids: Sequence[int],
) -> float:
    """Return how much the logits after some tokens differ between the two, without maskers.

    Nor is anything evicted after the context.

    Args:
        model: the one that prefilled the context.
        attention: has an evictor.
        context: with its whole cache.
        own: the same, without the evicted keys.
        token_ids: read after the context.

    Returns:
        As `sah.models.gate.relative_difference`.
    """
    kept = own.kept or {}
    layers = range(model.model.config.get_text_config(decoder=True).num_hidden_layers)
    dense = [layer for layer in layers if layer not in kept]
    assert attention.evictor is not None
    of_context = {"kept": _OfContext(of=attention.evictor)}
    compacted = SparseAttention(name="compacted", evict=of_context, dense_layers=dense)
    masked = SparseAttention(
        name="masked", maskers={"kept": _ReadingKept(kept=kept)}, dense_layers=dense
    )

    def logits(attention: SparseAttention, context: PrefilledContext) -> Tensor:
        session = AttentionSession(attention, seed=0)
        session.begin_context(context.length, context.kept)
        session.begin_example("doctor")
        try:
            return model.read_question(context, token_ids, session=session)[1]
        finally:
            context.cache.rewind()

    return relative_difference(model, logits(compacted, own), logits(masked, context))
