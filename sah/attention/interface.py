"""The attention interface of transformers: replace a model's attention function, number layers."""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from sah.errors import ConfigurationError

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
            "+model.attn_implementation=sdpa, or choose another model"
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
