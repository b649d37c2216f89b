"""Data that PyPI packages carry, read without running the packages' code."""

import importlib.util
from pathlib import Path


def installed_folder(module: str) -> Path | None:
    """The folder of an installed package; None if it is not installed.

    The package is not imported: some that carry data need others that nobody has.
    """
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
