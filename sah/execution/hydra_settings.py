"""Hydra's own settings that would misplace results, or that Hydra would ignore."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from sah.errors import ConfigurationError

_FIXED: dict[str, Any] = {
    "job.chdir": False,
    "run.dir": "${sah.directory:}",
    "sweep.dir": "${output_root}",
    "sweep.subdir": "${sah.subdirectory:}",
    "output_subdir": None,
}
"""The values of conf/config.yaml, as written there."""


def require_fixed_settings(config: DictConfig) -> None:
    """Check that Hydra's settings about directories are those of conf/config.yaml.

    The directory of an experiment is named after what it computes: resume, `sah status` and
    `sah report` find it by its name. Hydra's settings could only put files elsewhere.

    Args:
        config: a composed configuration; one without Hydra's part passes.

    Raises:
        ConfigurationError: naming the first setting that differs.
    """
    if "hydra" not in config:
        return
    for name, fixed in _FIXED.items():
        node = config.hydra
        *above, key = name.split(".")
        for part in above:
            node = node[part]
        # As written, since an interpolation may not resolve yet.
        value = node._get_node(key)._value()
        if value != fixed and not (name == "job.chdir" and value is None):
            raise ConfigurationError(
                f"hydra.{name}={value} is refused: the directory of an experiment is named after "
                "what it computes, so that resume, `sah status` and `sah report` find it; leave "
                "this out, and choose the folder of all results with output_root=DIR"
            )


def refused_search_path(overrides: Sequence[str]) -> str | None:
    """Describe a hydra.searchpath that Hydra would ignore, or of which it would miss a folder.

    Args:
        overrides: as typed.

    Returns:
        None if there is none, or if Hydra uses it or explains itself.
    """
    given = [text for text in overrides if re.match(r"[+~]*hydra\.searchpath\b", text)]
    for text in given:
        if not text.startswith("hydra.searchpath="):
            return (
                f"{text}: Hydra ignores this spelling; write hydra.searchpath=[FOLDER,...], "
                "without a prefix, or --config-dir FOLDER"
            )
    if len(given) > 1:
        return (
            f"{' '.join(given)}: Hydra uses the first of several; list all folders in one, "
            "hydra.searchpath=[FOLDER,FOLDER]"
        )
    for place in _listed(given[0]) if given else []:
        if not _exists(place):
            return f"hydra.searchpath: {place!r} does not exist; give a folder, or pkg://MODULE"
    return None


def search_folders(overrides: Sequence[str]) -> list[Path]:
    """Return the folders that hydra.searchpath names; those of packages are left out."""
    given = [text for text in overrides if text.startswith("hydra.searchpath=")]
    places = [place.rpartition("://") for text in given for place in _listed(text)]
    return [Path(path) for scheme, _, path in places if scheme in ("", "file")]


def _listed(override: str) -> list[str]:
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return []
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _exists(place: str) -> bool:
    scheme, _, path = place.rpartition("://")
    if scheme in ("", "file"):
        return Path(path).is_dir()
    if scheme != "pkg":
        # Hydra lists the schemes that it knows.
        return True
    try:
        return find_spec(path) is not None
    except ImportError:
        return False
