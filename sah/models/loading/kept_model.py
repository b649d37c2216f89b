"""A model that stays loaded for the next experiments of its process."""

import ctypes
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel


class _Source(Protocol):
    def load(self) -> "LanguageModel": ...


class KeptModel:
    """Holds the last model that was loaded, and loads another one only when asked for it."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._model: LanguageModel | None = None
        self._peak_bytes = 0

    def load(self, source: _Source, key: str) -> "LanguageModel":
        """Return the model of a source, which is loaded unless it is held already.

        Args:
            source: the model of an experiment.
            key: hash of its configuration and content, `sah.results.identity.model_key`.
        """
        if self._model is None or key != self._key or not self._model.is_usable:
            self.forget()
            self._model = source.load()
            self._key = key
        return self._model

    def forget(self) -> None:
        """Free the model; the next experiment loads its own."""
        if self._model is not None:
            self._key = self._model = None
            free_memory()
        self._peak_bytes = 0

    def with_loading(self, peak_bytes: int) -> int:
        """Return a peak memory that includes loading, also if the model was loaded before.

        Args:
            peak_bytes: measured around `load`.
        """
        # Noted once: later peaks contain what other experiments left in the process.
        self._peak_bytes = self._peak_bytes or peak_bytes
        return max(self._peak_bytes, peak_bytes)


def free_memory() -> None:
    """Collect unreachable tensors, and return what is cached to the device and the system."""
    gc.collect()
    with suppress(AttributeError, OSError):
        # glibc keeps freed memory, which would count in the peak of the next experiment.
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
