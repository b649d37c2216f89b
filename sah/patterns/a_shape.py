"""Sinks and a sliding window, while the context is prefilled."""

from dataclasses import dataclass

import torch

from sah.attention.prefill.pattern import PrefillLayer, Reads


@dataclass(frozen=True, kw_only=True)
class AShape:
    """Let each query of the context read the first keys and its last ones.

    The A-shape of MInference (arXiv:2407.02490, section 3), known from StreamingLLM
    (arXiv:2309.17453), of which keys keep their positions here. The authors' code
    (minference/models_patch.py) has a window of 3,968 tokens by default, which reads all of a
    context of 4,096, and one of 1,024 in its examples.
    """

    sinks: int = 128
    """Keys at the beginning that every query reads; 128 as in the authors' code."""
    window: int = 1024
    """Last keys of each query, its own included; 1,024 as in the authors' examples."""

    def __post_init__(self) -> None:
        for field, least in (("sinks", 0), ("window", 1)):
            if getattr(self, field) < least:
                raise ValueError(
                    f"{type(self).__name__}: {field} must be at least {least}, got "
                    f"{getattr(self, field)}"
                )

    def reads(self, layer: PrefillLayer) -> Reads:
        """Return sinks and window, the same for all heads."""
        position = torch.arange(layer.length, device=layer.key.device)
        return Reads(window=self.window, columns=(position < self.sinks).view(1, 1, -1))
