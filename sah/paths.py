"""Where SAH keeps things, and names that are safe as file names. Standard library only."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any


def cache_home() -> Path:
    """Where SAH keeps what it can make again: SAH_CACHE, else `sah` in the user's cache home."""
    home = os.environ.get("SAH_CACHE")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sah"


def calibration_home() -> Path:
    """Where `sah calibrate` and `sah convert` put what a method was fitted to a model with."""
    return cache_home() / "calibration"


def config_folder() -> Path:
    """Where conf/ lies: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def sanitise(name: Any) -> str:
    """Make a name safe as one path component, on every common file system.

    Two names may become equal; what must differ needs a fingerprint besides.
    """
    safe = re.sub(r'[/\\:*?"<>|\x00-\x20]+', "-", str(name)).lstrip(".-")
    # File systems count bytes.
    return safe.encode()[:100].decode(errors="ignore").rstrip(". ") or "unnamed"


def installed_folder(module: str) -> Path | None:
    """The folder of an installed package; None if it is not installed.

    The package is not imported: some that carry data need others that nobody has.
    """
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
