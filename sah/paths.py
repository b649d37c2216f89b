"""Directories and groups of options that SAH uses, and safe file names. Standard library only."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

STAGES = {"masker": "maskers", "pattern": "prefill", "evictor": "evict", "rewriter": "rewrite"}
"""Groups whose options are parts of an attention, and the field of the attention for them."""


def cache_home() -> Path:
    """Return the cache directory: SAH_CACHE, else `sah` in the user's cache home.

    It holds only what SAH can rebuild.
    """
    home = os.environ.get("SAH_CACHE")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sah"


def calibration_home() -> Path:
    """Return the directory to which `sah calibrate` and `sah convert` write."""
    return cache_home() / "calibration"


def config_folder() -> Path:
    """Return the path of conf/: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def studies_folder() -> Path:
    """Return the path of experiments/: beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def references_file() -> Path:
    """Return the path of references.bib: in docs/ of a checkout, inside the package otherwise."""
    package = Path(__file__).resolve().parent
    installed = package / "references.bib"
    return installed if installed.is_file() else package.parent / "docs" / "references.bib"


def sanitise(name: Any) -> str:
    """Turn a name into one path component that is valid on every common file system.

    Different names may become equal; add a fingerprint where they must stay distinct.
    """
    safe = re.sub(r'[/\\:*?"<>|\x00-\x20]+', "-", str(name)).lstrip(".-")
    # File systems limit bytes, not characters.
    return safe.encode()[:100].decode(errors="ignore").rstrip(". ") or "unnamed"


def installed_folder(module: str) -> Path | None:
    """Return the folder of an installed package, or None if it is not installed.

    The package is not imported: some packages that carry data have dependencies that are not
    installed.
    """
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
