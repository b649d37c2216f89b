"""The attention interface of transformers: replace a model's attention function, number layers."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from sah.errors import ConfigurationError

Observer = Callable[[torch.nn.Module, Tensor, Tensor, dict[str, Any]], None]
"""Gets the module, query [B, H, Q, D], key [B, G, K, D] and keywords of an attention function."""

_names = (f"sah_{number}" for number in itertools.count())


@contextmanager
def attention_replaced(
    model: PreTrainedModel, function: Callable[..., Any], mask: Callable[..., Any]
) -> Iterator[None]:
    """Make the model call `function` for attention and `mask` for its mask; restore on exit."""
    config = model.config.get_text_config(decoder=True)
    name, before = next(_names), config._attn_implementation
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, mask)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
        # transformers has `register` but no way to unregister.
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def mask_function(name: str) -> Callable[..., Any]:
    """Return the function that makes the mask of an attention implementation."""
    function: Any = AttentionMaskInterface._global_mapping[name]
    return function  # type: ignore[no-any-return]


@contextmanager
def attention_observed(model: PreTrainedModel, observe: Observer) -> Iterator[None]:
    """Call `observe` before each call of the attention function in place, inside the block.

    That is the model's own, or a pattern's. It gets the arguments it would get without this, and
    computes every output.

    Raises:
        ConfigurationError: if the model's attention function cannot be found.
    """
    name = model.config.get_text_config(decoder=True)._attn_implementation

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        observe(module, query, key, kwargs)
        return attention_function(name, module)(module, query, key, value, attention_mask, **kwargs)

    with attention_replaced(model, attend, mask_function(name)):
        yield


def attention_function(name: str, module: torch.nn.Module) -> Callable[..., Any]:
    """Return an attention function by name; "eager" is defined beside each model.

    Raises:
        ConfigurationError: if it cannot be found.
    """
    if name in AttentionInterface._global_mapping:
        function: Callable[..., Any] = AttentionInterface._global_mapping[name]
        return function
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if name != "eager" or eager is None:
        raise ConfigurationError(
            "eviction and sparse prefill need to see the queries of the prefill, but the attention "
            f"function {name!r} of {type(module).__name__} is not known by name; set "
            "+model.model_kwargs.attn_implementation=sdpa, or choose another model"
        )
    return eager  # type: ignore[no-any-return]


def layer_number(module: torch.nn.Module) -> int:
    """Return the number that an attention module gives itself.

    Raises:
        ConfigurationError: if it has none.
    """
    number = getattr(module, "layer_idx", None)
    if not isinstance(number, int) or number < 0:
        raise ConfigurationError(
            f"{type(module).__name__} calls itself layer {number}, so that its keys cannot be told "
            "from those of other layers; choose another model"
        )
    return number


def scaling_of(query: Tensor, keywords: Mapping[str, Any]) -> float:
    """Return what an attention function multiplies products by, given its keywords."""
    scaling = keywords.get("scaling")
    return float(query.shape[-1] ** -0.5 if scaling is None else scaling)
