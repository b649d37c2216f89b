"""An estimate of the memory that an experiment needs, compared with what is available."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psutil
import torch

from sah.attention import DenseAttention, SparseAttention
from sah.doctor.finding import Finding, counted, error, ok, sized, warning
from sah.execution.experiment import Experiment
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, repetition_room
from sah.models.prompts import EncodedPrompt

# Size of a method's index of the keys (pages, codes, projections), as a share of the cache.
_INDEX_SHARE = 0.25

# Share of the available memory above which the estimate is a warning.
_TIGHT = 0.85


class Measurable(Protocol):
    """A model whose memory can be estimated: loaded, or without weights."""

    @property
    def model(self) -> Any:
        """The model of transformers."""

    def cache_bytes(self, tokens: int) -> int:
        """Return the size of a context's cache."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What the longest prompts need that are answered in one batch, in bytes."""

    weights: int
    cache: int
    """Of all contexts of the batch; so are the next five."""
    copied: int
    """Copy of the cache from which an arm decodes that evicts or rewrites: at most everything."""
    side_by_side: int
    """Copy in which an arm decodes the rows of a batch together: at most everything."""
    repetition: int
    """Room in the cache for a part of the context that the model repeats (KVzip)."""
    remembered: int
    """Hidden states of all layers, which scorers of kvpress read."""
    prefill: int
    """Activations of one layer: hidden states and feed-forward."""
    workspace: int
    indexes: float
    """Of one arm that has maskers, and their copy side by side: the next arm builds its own."""

    @property
    def total(self) -> float:
        """The sum."""
        contexts = self.cache + self.copied + self.side_by_side + self.repetition
        contexts += self.remembered + self.prefill
        return self.weights + contexts + self.workspace + self.indexes


def estimate_memory(
    model: Measurable,
    attentions: Sequence[DenseAttention | SparseAttention],
    tokens: int,
    generation: Generation,
) -> MemoryEstimate:
    """Estimate what contexts of this many tokens need, their questions and answers included.

    Args:
        model: whose parameters may have no content.
        attentions: those of the arms, at least one.
        tokens: of context, question and answer.
        generation: says how many contexts may be in one batch.
    """
    rows = generation.rows_together(tokens)
    config = model.model.config.get_text_config(decoder=True)
    cache = rows * model.cache_bytes(tokens)
    itemsize = model.model.dtype.itemsize
    width = 4 * config.hidden_size + 3 * getattr(config, "intermediate_size", 0)
    sparse = [one for one in attentions if isinstance(one, SparseAttention)]
    witnesses = [one.witness for one in sparse if one.witness is not None]
    repeated = max((repetition_room(one, tokens) for one in witnesses), default=0)
    has_maskers = any(one.maskers or one.layers for one in sparse)
    stacked = cache if rows > 1 else 0
    hidden = rows * tokens * config.hidden_size * config.num_hidden_layers * itemsize
    return MemoryEstimate(
        weights=sum(_held_bytes(weight) for weight in model.model.parameters()),
        cache=cache,
        copied=cache if witnesses else 0,
        side_by_side=stacked,
        repetition=rows * model.cache_bytes(tokens + repeated) - cache,
        remembered=hidden if any(one.calls for one in witnesses) else 0,
        prefill=tokens * width * itemsize,
        workspace=max((one.workspace_bytes for one in sparse), default=0),
        indexes=_INDEX_SHARE * (cache + stacked) if has_maskers else 0.0,
    )


def check_memory(
    experiment: Experiment,
    model: LanguageModel,
    prompts: Sequence[EncodedPrompt],
    new_tokens: int,
    arms: int,
) -> Finding:
    """Estimate what the longest prompt needs, and compare it with what is free."""
    longest = max(len(one.context_ids) + len(one.question_ids) for one in prompts)
    generation = experiment.generation
    if model.decodes_alone:
        generation = replace(generation, batch_rows=1)
    needed = estimate_memory(
        model, [experiment.sparse_attention] * arms, longest + new_tokens, generation
    )
    total = needed.total
    # The weights are already loaded, so that free memory does not include them.
    available = _free_bytes(model.device) + needed.weights
    together = f"{sized(needed.side_by_side)} to decode them side by side, "
    message = (
        f"needs about {sized(total)} of {sized(available)} (weights {sized(needed.weights)}, cache "
        f"{sized(needed.cache)} for batches of prompts of {longest} tokens, "
        f"{together if needed.side_by_side else ''}{counted(arms, 'arm')})"
    )
    if total > available:
        return error(
            "memory",
            message,
            "lower benchmark.context_tokens, or use a larger device or a smaller model.dtype",
        )
    if total > _TIGHT * available:
        return warning(
            "memory", message, "this is close to the limit, so the sweep may run out of memory"
        )
    return ok("memory", message)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _held_bytes(weight: Any) -> int:
    """Return what this process holds of a weight, which may be split over several."""
    part = weight.to_local() if hasattr(weight, "to_local") else weight
    return int(part.nbytes)
