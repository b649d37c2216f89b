"""The sizes of a model's weights and cache, from its configuration alone."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from sah.errors import ModelLoadingError
from sah.models.cache import RewindableCache
from sah.models.loading.architecture import LOADING_ERRORS, reason


@dataclass(frozen=True, kw_only=True)
class ModelOutline:
    """A model without weights: its tensors have shapes and types, but no content."""

    model: Any
    """The model of transformers, on torch's meta device."""

    @classmethod
    def of(cls, auto_class: Any, config: Any, dtype: torch.dtype) -> "ModelOutline":
        """Make a model's outline.

        Args:
            auto_class: the class, or auto class, of transformers that would load it.
            config: the model's config.
            dtype: type of the weights.

        Raises:
            ModelLoadingError: if the weights are quantised, or transformers cannot make the model
                without them.
        """
        if getattr(config, "quantization_config", None) is not None:
            raise ModelLoadingError(
                "the weights are quantised, and their size is not in the config"
            )
        # A class of one architecture has it under another name.
        is_auto = hasattr(auto_class, "from_config")
        make = auto_class.from_config if is_auto else auto_class._from_config
        try:
            with torch.device("meta"):
                return cls(model=make(config, dtype=dtype).eval())
        except LOADING_ERRORS as error:
            raise ModelLoadingError(
                f"no model can be made of the config: {reason(error)}"
            ) from error

    def cache_bytes(self, tokens: int) -> int:
        """Return the size of a context's cache: keys, values and other states of all layers.

        Raises:
            ModelLoadingError: if the model cannot run without weights.
        """
        return self._cache_of_one.bytes_at(tokens)

    @cached_property
    def _cache_of_one(self) -> RewindableCache:
        cache = RewindableCache(self.model.config, capacity=1)
        token = torch.zeros(1, 1, dtype=torch.long, device="meta")
        try:
            with torch.inference_mode():
                self.model(input_ids=token, past_key_values=cache, use_cache=True)
        except LOADING_ERRORS as error:
            raise ModelLoadingError(
                f"{type(self.model).__name__} does not run without weights: {reason(error)}"
            ) from error
        return cache
