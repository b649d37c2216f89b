"""Checks of a model's inputs while an attention is attached to it."""

# B batch, N new tokens, K columns of the padded batch, E hidden dimension

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from sah.errors import ConfigurationError

# Settings of `generate` that sparse decoding does not support, with their harmless values.
_GENERATION = {
    "num_beams": (None, 1),
    "assistant_model": (None,),
    "assistant_early_exit": (None,),
    "prompt_lookup_num_tokens": (None,),
    "cache_implementation": (None, "dynamic"),
    "prefill_chunk_size": (None,),
    "use_cache": (None, True),
    "penalty_alpha": (None, 0, 0.0),
    "dola_layers": (None,),
    "custom_generate": (None,),
    "output_attentions": (None, False),
}

# Inputs to prefill one row of a batch with; its positions follow from the tokens.
_OF_ROWS = ("input_ids", "inputs_embeds")
# Inputs that change nothing, or belong to the batch as a whole.
_OF_BATCH = (
    *("attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position"),
    *("logits_to_keep", "return_dict", "output_attentions", "output_hidden_states"),
    *("next_sequence_length", "labels"),
)

# What a batch whose rows are read alone cannot return, with the harmless values.
_LOGITS_ONLY = {
    "labels": (None,),
    "output_hidden_states": (None, False),
    "return_dict": (None, True),
}


def require_generation(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse settings of `generate` that sparse decoding cannot follow, before anything runs.

    Raises:
        ConfigurationError: naming the setting and its value.
    """
    names = [*inspect.signature(type(model).generate).parameters][1:]  # without self
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    settings = given.get("generation_config") or model.generation_config
    for name, harmless in _GENERATION.items():
        value = given.get(name, getattr(settings, name, None))
        if value not in harmless:
            shown = type(value).__name__ if isinstance(value, torch.nn.Module) else repr(value)
            raise ConfigurationError(
                f"sah.attach does not support generate({name}={shown}); leave it out: greedy "
                "decoding and sampling with a dynamic cache are supported"
            )


def require_cache(model: PreTrainedModel, call: dict[str, Any]) -> DynamicCache:
    """Return the cache of a forward pass; add one where transformers would make it.

    Raises:
        ConfigurationError: for a pass without a cache, or another kind of cache.
    """
    if call.get("use_cache") is False:
        raise ConfigurationError(
            "use_cache=False makes every pass a prefill, which is dense, so that nothing would be "
            "sparse; leave use_cache out"
        )
    if call.get("output_attentions"):
        raise ConfigurationError(
            "output_attentions=True: sparse attention has no weights for all keys to return; leave "
            "it out"
        )
    cache = call.get("past_key_values")
    if cache is None:
        cache = DynamicCache(config=model.config)
        call |= {"past_key_values": cache, "use_cache": True}
    if type(cache) is not DynamicCache or cache.offloading:
        offloading = " with offloading" if getattr(cache, "offloading", False) else ""
        raise ConfigurationError(
            f"sah.attach supports DynamicCache, got {type(cache).__name__}{offloading}; leave "
            "cache_implementation and past_key_values out"
        )
    return cache


def left_padding(call: Mapping[str, Any], *, columns: int | None = None) -> list[int]:
    """Return the number of padded columns on the left of each row.

    Args:
        call: arguments of the forward pass.
        columns: of the mask that belong to the context; None: all.

    Raises:
        ConfigurationError: if a row is padded elsewhere, or the mask has another shape.
    """
    batch, _ = _size(call)
    mask = call.get("attention_mask")
    if mask is None:
        return [0] * batch
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != batch:
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ConfigurationError(
            f"sah.attach understands an attention_mask of shape [{batch}, tokens], got {shape}; "
            "give the mask of the tokenizer"
        )
    real = mask[:, :columns].bool()  # B K
    counts = real.sum(1).tolist()
    for row, count in enumerate(counts):
        if count == 0 or not real[row, real.shape[1] - count :].all():
            raise ConfigurationError(
                f"row {row} of the batch is padded after its first token, where sah.attach "
                "understands padding on the left; set tokenizer.padding_side='left'"
            )
    return [real.shape[1] - count for count in counts]


def require_continued(call: Mapping[str, Any], cache: DynamicCache, padding: Sequence[int]) -> int:
    """Return the number of new tokens of a pass that continues a cache.

    Raises:
        ConfigurationError: if the pass is about other rows, or its new tokens are padded.
    """
    batch, queries = _size(call)
    if batch != len(padding):
        raise ConfigurationError(
            f"this pass has {batch} rows, but the cache holds {len(padding)}; prefill and decode "
            "the same batch"
        )
    mask = call.get("attention_mask")
    if mask is None:
        if any(padding):
            raise ConfigurationError(
                "this pass has no attention_mask, but the cache holds padded rows; give the mask "
                "of all tokens so far"
            )
        return queries
    columns = cache.get_seq_length()
    if not isinstance(mask, Tensor) or mask.shape != (batch, columns + queries):
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ConfigurationError(
            f"sah.attach understands an attention_mask of shape {[batch, columns + queries]} here "
            f"(tokens in the cache, and new ones), got {shape}"
        )
    # Outside of a prefill nothing but its padding is masked.
    if int(mask.bool().sum()) != mask.numel() - sum(padding):
        raise ConfigurationError(
            f"new tokens of this pass ({queries} in each row) are masked; continue a cache with "
            "questions of one length, or with one row at a time"
        )
    return queries


def own_inputs(
    call: Mapping[str, Any], padding: Sequence[int], *, has_pattern: bool
) -> list[dict[str, Any]]:
    """Return the inputs of each row without padding, to prefill it alone.

    Args:
        call: arguments of the forward pass.
        padding: columns on the left of each row.
        has_pattern: whether the logits are those of each row alone, not of the batch.

    Raises:
        ConfigurationError: if the batch has inputs that cannot be divided among the rows, or asks
            for more than logits where they are those of each row.
    """
    others = [
        name
        for name, value in call.items()
        if value is not None and name not in (*_OF_ROWS, *_OF_BATCH)
    ]
    if others:
        raise ConfigurationError(
            "an evictor, rewriter or pattern reads each row of a batch alone, which sah.attach "
            f"cannot do with {', '.join(sorted(others))}; use batches of one row without padding"
        )
    kept = call.get("logits_to_keep", 0) if has_pattern else 1
    asked = [name for name, harmless in _LOGITS_ONLY.items() if call.get(name) not in harmless]
    asked += ["logits_to_keep (a tensor)"] if isinstance(kept, Tensor) else []
    if has_pattern and asked:
        raise ConfigurationError(
            "a pattern reads each row of a batch alone, and sah.attach joins nothing but the "
            f"logits of the rows; leave {', '.join(asked)} out, or use batches of one row without "
            "padding"
        )
    given = {name: call[name] for name in _OF_ROWS if call.get(name) is not None}
    return [
        {name: value[row : row + 1, columns:] for name, value in given.items()}
        | {"logits_to_keep": kept}
        for row, columns in enumerate(padding)
    ]


def replace_logits(output: Any, row: int, alone: Any) -> None:
    """Replace the logits of one row of a batch by those of the row that was read alone."""
    own = alone.logits[0]  # N vocabulary
    kept = min(len(own), output.logits.shape[1])
    output.logits[row, -kept:] = own[-kept:]


def require_positions(call: Mapping[str, Any], padding: Sequence[int]) -> None:
    """Check that the tokens of each row are counted from 0, as evictors, rewriters, patterns do.

    Raises:
        ConfigurationError: if they are not, or if the padding would be counted.
    """
    _, length = _size(call)
    positions = call.get("position_ids")
    if positions is None and any(padding):
        raise ConfigurationError(
            "a padded batch without position_ids counts its padding, which an evictor, rewriter "
            "or pattern does not; give them (attention_mask.cumsum(-1) - 1), as generate does"
        )
    # Of several kinds in multimodal models.
    if positions is None or positions.ndim != 2:
        return
    columns = torch.arange(length, device=positions.device)
    first = torch.tensor(padding, device=positions.device)[:, None]
    if not (positions == columns - first)[columns >= first].all():
        raise ConfigurationError(
            "position_ids of a prefill must count the tokens of each row from 0 where keys are "
            "evicted or rewritten, or a pattern decides what is read; leave position_ids out, or "
            "prefill the whole context at once"
        )


def _size(call: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows and new tokens of a pass."""
    given = [call[name] for name in _OF_ROWS if call.get(name) is not None]
    if not given:
        raise ConfigurationError("the model is called without input_ids or inputs_embeds")
    return int(given[0].shape[0]), int(given[0].shape[1])
