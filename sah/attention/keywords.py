"""What a model may hand to its attention function besides query, key and value."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sah.errors import ConfigurationError

# What models pass besides, and what does not change the output at inference, whatever its value.
_HARMLESS = frozenset(
    {
        "cache_position",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "use_cache",
    }
)


def check_keywords(
    module: torch.nn.Module,
    queries: int,
    attention_mask: Tensor | None,
    keywords: Mapping[str, Any],
) -> None:
    """Refuse what sparse attention would ignore, such as a position bias or a selection of keys.

    Scaling, soft cap, attention sinks and sliding windows are understood, and are not among the
    keywords here. Some other keywords are known to change nothing; everything else is refused,
    so that no part of a model's attention is left out silently.

    Args:
        module: the layer's attention module.
        queries: number of queries.
        attention_mask: as transformers passes it.
        keywords: all further arguments.

    Raises:
        ConfigurationError: naming the model's attention class and the keyword.
    """
    if attention_mask is not None and (
        attention_mask.dtype != torch.bool or attention_mask.shape[1] != 1
    ):
        raise _refused(
            module,
            f"passes a mask of type {attention_mask.dtype} and shape {list(attention_mask.shape)}, "
            "where sparse attention understands a boolean one, equal for all heads",
        )
    for name, value in keywords.items():
        if value is None or name in _HARMLESS:
            continue
        if name == "dropout" and value == 0:
            continue
        # A mask says what is visible, and a single query sees every key.
        if name == "is_causal" and (value or attention_mask is not None or queries == 1):
            continue
        raise _refused(module, f"passes {name!r}, which sparse attention would ignore")


def _refused(module: torch.nn.Module, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{type(module).__name__} {problem}, so that its results would be wrong; choose another "
        "model"
    )
