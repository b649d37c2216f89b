"""The names and settings of experiments that have no result yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sah.results.identity import NOT_IDENTITY
from sah.results.schema import flat_settings, subset_name
from sah.results.store import CONFIG
from sah.results.sweep_folders import PlannedCell

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_GROUPS = ("model", "sparse_attention", "benchmark", "protocol")


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """An experiment as its configuration describes it."""

    model: str
    attention: str
    benchmark: str
    subset_name: str
    protocol: str
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_planned: bool = False
    """Whether it has not begun, so that the settings are those of its overrides alone."""


def read_unfinished(directory: Path, planned: PlannedCell | None) -> Unfinished:
    """Describe an experiment by its config.yaml, else by the sweep that planned it, or its path."""
    path = directory / CONFIG
    try:
        config = _read_config(path, path.stat().st_mtime_ns)
    except OSError:
        config = {}
    names = [config.get(group) for group in _GROUPS]
    if all(isinstance(part, dict) and "name" in part for part in names):
        model, attention, benchmark, protocol = (str(config[group]["name"]) for group in _GROUPS)
        return Unfinished(
            model=model,
            attention=attention,
            benchmark=benchmark,
            subset_name=subset_name(config["benchmark"].get("subset")),
            protocol=protocol,
            fingerprint=directory.name,
            settings=flat_settings(config),
        )
    *_, model, attention, benchmark, fingerprint = ["?"] * 4 + list(directory.parts)
    cell = planned or PlannedCell()
    return Unfinished(
        model=cell.model or model,
        attention=cell.attention or attention,
        benchmark=cell.benchmark or benchmark,
        subset_name=cell.subset or "all",
        protocol=cell.protocol or "default",
        fingerprint=fingerprint,
        settings=_changed(cell),
        is_planned=True,
    )


@lru_cache(maxsize=10_000)
def _read_config(path: Path, changed: int) -> dict[str, Any]:
    """Read config.yaml; of a damaged one nothing is known.

    Args:
        path: of the file.
        changed: its time of change, so that `sah status --watch` reads a new version.
    """
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {str(key): value for key, value in config.items() if key not in NOT_IDENTITY}


def _changed(cell: PlannedCell) -> dict[str, str]:
    """Return the values that the overrides of a cell set; options of groups are its names."""
    settings = {}
    for override in cell.overrides:
        key, _, value = override.lstrip("+").partition("=")
        top = key.partition(".")[0]
        if "@" not in key and "/" not in key and top not in NOT_IDENTITY:
            if "." in key or top == "seed":
                settings[key] = value
    return settings
