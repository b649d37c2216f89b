"""An estimate of the memory that an experiment needs, compared with what is available."""

from collections.abc import Sequence

import psutil
import torch

from sah.attention import SparseAttention
from sah.doctor.finding import Finding, counted, error, ok, warning
from sah.execution.experiment import Experiment
from sah.models.language_model import LanguageModel
from sah.models.prompts import EncodedPrompt

# Size of a method's index of the keys (pages, codes, projections), as a share of the cache.
_INDEX_SHARE = 0.25

# Share of the available memory above which the estimate is a warning.
_TIGHT = 0.85


def check_memory(
    experiment: Experiment,
    model: LanguageModel,
    prompts: Sequence[EncodedPrompt],
    new_tokens: int,
    arms: int,
) -> Finding:
    """Estimate what the longest prompt needs: weights, cache, its copy, prefill, all indexes."""
    config = model.model.config.get_text_config(decoder=True)
    longest = max(len(one.context_ids) + len(one.question_ids) for one in prompts)
    size = model.model.dtype.itemsize
    weights = sum(weight.nbytes for weight in model.model.parameters())
    cache = model.cache_bytes(longest + new_tokens)
    # Activations of one layer during the prefill: hidden states and feed-forward.
    width = 4 * config.hidden_size + 3 * getattr(config, "intermediate_size", 0)
    prefill = longest * width * size
    attention = experiment.sparse_attention
    workspace, copied = 0, 0
    if isinstance(attention, SparseAttention):
        workspace = attention.workspace_bytes
        # An arm that evicts or rewrites decodes from a copy of what stays: at most everything.
        copied = 0 if attention.witness is None else cache
    indexes = arms * _INDEX_SHARE * cache
    total = weights + cache + copied + prefill + workspace + indexes
    # The weights are already loaded, so that free memory does not include them.
    available = _free_bytes(model.device) + weights
    message = (
        f"needs about {_shown(total)} of {_shown(available)} (weights {_shown(weights)}, cache "
        f"{_shown(cache)} for {longest} tokens, {counted(arms, 'arm')})"
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


def _shown(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
