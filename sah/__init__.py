"""SAH: sparse-attention and KV-cache experiments, composed with Hydra.

What `__all__` names is imported at its first use, so that `import sah` stays light.
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
    # What the package `sah.results` does when it is called.
    "_results": ("sah.api.frames", "results"),
}
"""Module and name of what is imported at its first use."""


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
