"""SAH: sparse-attention and KV-cache experiments, composed with Hydra.

The names in `__all__` are imported at first use, so that `import sah` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sah.api.attach import attach
    from sah.api.experiments import compose, run
    from sah.api.frames import examples, results

__all__ = ["attach", "compose", "examples", "results", "run"]

_LAZY = {
    "attach": ("sah.api.attach", "attach"),
    "compose": ("sah.api.experiments", "compose"),
    "examples": ("sah.api.frames", "examples"),
    "run": ("sah.api.experiments", "run"),
    # Called by the package `sah.results`.
    "_results": ("sah.api.frames", "results"),
}
"""Module and name of each lazy import."""


def __getattr__(name: str) -> Any:
    if name == "results":
        return importlib.import_module("sah.results")
    if name not in _LAZY:
        raise AttributeError(f"module 'sah' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = globals()[name] = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
