"""The least time that a GPU needs, by its vendor's data sheet (a roofline; Williams et al., 2009).

Published rates of transformers on these GPUs are of prompts of 256 tokens (Hugging Face's LLM-Perf
leaderboard), which says nothing about long contexts. A bound is never wrong: prefill multiplies
each token with every weight of the linear layers, and a decode step reads every weight once.
Attention, the cache, the sampler, gaps between kernels, loading and a power limit come on top.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sah.launching.forecast.rates import Rates


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peak numbers of a GPU."""

    name: str
    operations: float
    """Floating-point operations per second: bfloat16 on tensor cores, without sparsity."""
    bandwidth: float
    """Bytes per second between memory and chip."""
    source: str

    def rates(self, model: Any, *, rows: int, gpus: int) -> Rates:
        """Return upper limits of the tokens per second of a model.

        Experts are left out, of which a token uses few, and so are embeddings, which are looked up.

        Args:
            model: of transformers; its weights may have no content.
            rows: questions that are decoded in one step.
            gpus: how many of this device work together.
        """
        weights = _weights(model.get_decoder())
        head = model.get_output_embeddings()
        size = sum(weight.nbytes for weight in weights) + (
            0 if head is None else head.weight.nbytes
        )
        products = 2 * sum(weight.numel() for weight in weights if weight.ndim == 2)
        return Rates(
            prefill=gpus * self.operations / products,
            decode=rows * gpus * self.bandwidth / size,
            device=self.name if gpus == 1 else f"{gpus} x {self.name}",
            bound=f"{self.operations / 1e12:.4g} TFLOPS, {self.bandwidth / 1e12:.4g} TB/s; "
            f"{self.source}",
        )


def _weights(decoder: nn.Module) -> list[nn.Parameter]:
    return [
        weight
        for name, module in decoder.named_modules()
        if not isinstance(module, nn.Embedding) and "experts" not in name.split(".")
        for weight in module.parameters(recurse=False)
    ]


# Data sheets give tensor cores with sparsity, which is twice as much.
DEVICES = {
    "a100": Device(
        name="NVIDIA A100 SXM 80 GB",
        operations=312e12,
        bandwidth=2.039e12,
        source="https://www.nvidia.com/en-us/data-center/a100/",
    ),
    "h100": Device(
        name="NVIDIA H100 SXM 80 GB",
        operations=1979e12 / 2,
        bandwidth=3.35e12,
        source="https://www.nvidia.com/en-us/data-center/h100/",
    ),
    "h200": Device(
        name="NVIDIA H200 SXM 141 GB",
        operations=1979e12 / 2,
        bandwidth=4.8e12,
        source="https://www.nvidia.com/en-us/data-center/h200/",
    ),
    "l40s": Device(
        name="NVIDIA L40S 48 GB",
        operations=362.05e12,
        bandwidth=0.864e12,
        source="https://www.nvidia.com/en-us/data-center/l40s/",
    ),
}
