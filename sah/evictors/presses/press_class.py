"""Import the class of a press, and refuse those that do not choose keys by their scores alone."""

import ast
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Classes that are refused, and the options that do the same.
_INSTEAD = {
    "AdaKVPress": "evictor=adakv",
    "BlockPress": "evictor=block_keydiff",
    "ChunkKVPress": "evictor=chunkkv",
    "CriticalAdaKVPress": "evictor=adakv, with criticalkv as its `of`",
    "CriticalKVPress": "evictor=criticalkv",
    "DuoAttentionPress": "evictor=duo_attention",
    "KVzipPress": "evictor=kvzip",
    "ObservedAttentionPress": "evictor=h2o",
    "PyramidKVPress": "evictor=pyramidkv",
    "SimLayerKVPress": "evictor=simlayerkv",
    "ThinKPress": "rewriter=think",
}
# What a press must leave to its base class, and what a press that overrides it does.
_LEFT_TO_BASE = {
    "compress": "chooses keys by more than their scores (its own compress)",
    "forward_hook": "changes what kvpress does after each layer (its own forward_hook)",
    "__call__": "changes how kvpress runs a model (its own __call__)",
    "post_init_from_model": "needs the model before it scores (its own post_init_from_model)",
}


def press_class(path: str) -> type[Any]:
    """Import a subclass of kvpress's ScorerPress by its dotted path.

    Raises:
        ValueError: if kvpress is not installed, if the path cannot be imported, or if the class
            is not one whose `score` alone decides which keys stay.
    """
    package, _, name = path.rpartition(".")
    if path.startswith("kvpress.") and name in _INSTEAD:
        raise _refusal(path, "is more than a scorer of keys and values")
    with kvpress_importable():
        try:
            kind = getattr(importlib.import_module(package), name)
            base: Any = importlib.import_module("kvpress.presses.scorer_press").ScorerPress
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"kvpress: press={path!r} cannot be imported ({error}); give the dotted path of a "
                "class that Python finds here, such as kvpress.SnapKVPress or my_presses.MyPress"
            ) from error
    score = getattr(kind, "score", None)
    if not inspect.isclass(kind) or not issubclass(kind, base):
        raise _refusal(path, "is not a ScorerPress")
    for method, does in _LEFT_TO_BASE.items():
        if getattr(kind, method) is not getattr(base, method):
            raise _refusal(path, does)
    if score is base.score:
        raise _refusal(path, "has no score method")
    return kind


def _refusal(path: str, reason: str) -> ValueError:
    own = _INSTEAD.get(path.rpartition(".")[2])
    way_out = "choose a press whose score method alone ranks the keys, or another evictor"
    if own is not None:
        way_out = f"use {own}"
    return ValueError(f"kvpress: press={path!r} {reason}; {way_out}")


@contextmanager
def kvpress_importable() -> Iterator[None]:
    """Let the modules of kvpress be imported inside the block, without running its `__init__`.

    That would wrap every attention function of transformers, and import libraries that only its
    scripts need. The classes that it exports are found as usual, `kvpress.SnapKVPress`.

    Raises:
        ValueError: if kvpress is not installed.
    """
    if "kvpress" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("kvpress")
    if spec is None or spec.origin is None:
        raise ValueError(
            "evictor=kvpress needs kvpress; install it with pip install --no-deps kvpress==0.5.5 "
            "(its dependencies ask for an older transformers)"
        )
    package, exports = types.ModuleType("kvpress"), _exports(Path(spec.origin))
    package.__path__ = list(spec.submodule_search_locations or ())

    def exported(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"kvpress has no {name}")
        return getattr(importlib.import_module(exports[name]), name)

    package.__getattr__ = exported  # type: ignore[method-assign]
    sys.modules["kvpress"] = package
    try:
        yield
    finally:
        # A later `import kvpress` in this process gets the package itself.
        del sys.modules["kvpress"]


def _exports(init: Path) -> dict[str, str]:
    """Return the module of each name that an `__init__.py` imports."""
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(ast.parse(init.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def projects_itself(kind: type[Any]) -> bool:
    """Whether a press computes queries or keys with kvpress's `get_prerope_...` functions."""
    used = vars(sys.modules[kind.__module__])
    others = {
        value.__module__: value
        for value in (*kind.__mro__, *used.values())
        if isinstance(value, type) and value.__module__.startswith("kvpress.presses.")
    }
    others.pop(kind.__module__, None)
    return any(name.startswith("get_prerope_") for name in used) or any(
        projects_itself(other) for other in others.values()
    )
