"""The fingerprint and output directory of an experiment: functions of what it computes alone."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.content import CONTENT, by_content
from sah.paths import sanitise
from sah.results.files import damaged
from sah.results.schema import SCHEMA, Result, subset_name

NOT_IDENTITY = frozenset(
    {
        *("hydra", "output_root", "resume", "timeout_minutes", "retries", "objective", "study"),
        *("bundle", "bundle_max", "tracker"),
    }
)
"""Configuration keys that cannot change the files of an experiment."""

# Groups in which the arms of one bundle may differ.
_OF_AN_ARM = frozenset({"hydra", "sparse_attention", "metric_logging", "study"})

# The order of the keys of these mappings counts: maskers are applied in order.
_ORDERED = re.compile(r"sparse_attention\.(maskers|layers\.[^.]+)")

# Backslashes before it count too: two of them mean one.
_LITERAL = re.compile(r"(\\*)\$\{")

FINGERPRINT_LENGTH = 12

# Increase it when the same configuration gives other answers or means; older results are then
# reported, but not resumed.
_EDITION = 5


def fingerprint(config: DictConfig) -> str:
    """Hash the resolved experiment.

    Overrides that compose the same experiment give the same hash, whatever their spelling and
    order. Null values do not count, so a new option that defaults to null leaves old results
    valid; 1 and 1.0 are the same number. The order of maskers counts. Local files count by their
    content, not by their path, and so do models and data sets of the Hub (`sah.content`).

    Raises:
        MissingMandatoryValue: if a value is still `???`.
    """
    return fingerprint_of(experiment_of(config))


def fingerprint_of(experiment: Mapping[str, Any]) -> str:
    """Hash a resolved experiment, such as the `config` of a result."""
    return _hash([_EDITION, _canonical(experiment, "")])


def typed_fingerprint(experiment: Mapping[str, Any]) -> str:
    """Hash a resolved experiment by the paths and revisions in it, whatever their content."""
    return _hash(_canonical(_without_content(experiment), ""))


def check_config(result: Result) -> None:
    """Check that a result has the fingerprint of the configuration in it.

    Earlier versions hashed something else, so that their results are not checked.

    Raises:
        DamagedResults: if it has another one.
    """
    if result.schema == SCHEMA and fingerprint_of(result.config) != result.fingerprint:
        raise damaged(
            result.directory / "results.json",
            f"its config is not that of experiment {result.fingerprint!r}",
        )


def shared_key(config: DictConfig) -> str:
    """Hash everything that the arms of a bundle share: equal for cells that may be bundled."""
    shared = {str(key): resolved(config[key]) for key in config if str(key) not in _OF_AN_ARM}
    return _hash(_canonical(shared, ""))


def model_key(config: DictConfig) -> str:
    """Hash the model of an experiment: equal for experiments that load the same one."""
    return _hash(_canonical(resolved(config.model), "model"))


def directory(config: DictConfig) -> Path:
    """Return <output_root>/<model>/<attention>/<benchmark>_<subset>/<fingerprint>."""
    subset = OmegaConf.select(config, "benchmark.subset")
    names = (config.model.name, config.sparse_attention.name, config.benchmark.name)
    return Path(str(config.output_root), folders(*names, subset), fingerprint(config))


def folders(model: str, attention: str, benchmark: str, subset: Any) -> Path:
    """Return <model>/<attention>/<benchmark>_<subset>, where an output root has an experiment."""
    names = (model, attention, f"{benchmark}_{subset_name(subset)}")
    return Path(*map(sanitise, names))


def _hash(value: Any) -> str:
    # json, not orjson: other separators would change every fingerprint.
    text = json.dumps(value, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def experiment_of(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration without the keys in NOT_IDENTITY."""
    kept = [str(key) for key in config if key not in NOT_IDENTITY]
    return {key: resolved(config[key]) for key in kept}


def as_literals(value: Any) -> Any:
    r"""Escape each `${` in the texts of a resolved configuration, so that it stays text.

    OmegaConf would interpolate it once more. A literal `${` comes from `\${` in the original.
    """
    if isinstance(value, dict):
        return {key: as_literals(child) for key, child in value.items()}
    if isinstance(value, list):
        return [as_literals(child) for child in value]
    if isinstance(value, str):
        return _LITERAL.sub(lambda found: f"{2 * found[1]}\\${{", value)
    return value


def is_interpolated(text: str) -> bool:
    """Whether OmegaConf would interpolate a text; not if each `${` in it is escaped."""
    return any(len(found[1]) % 2 == 0 for found in _LITERAL.finditer(text))


def resolved(value: Any) -> Any:
    """Return a value of a configuration as plain Python, interpolations resolved.

    Raises:
        MissingMandatoryValue: if a value is still `???`.
    """
    if not OmegaConf.is_config(value):
        return value
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


def _without_content(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_content(item) for key, item in value.items() if key != CONTENT}
    return [_without_content(item) for item in value] if isinstance(value, list) else value


def _canonical(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        items = [
            [str(key), _canonical(child, f"{path}.{key}".lstrip("."))]
            for key, child in by_content(value).items()
            if child is not None
        ]
        return {"": items if _ORDERED.fullmatch(path) else sorted(items, key=lambda item: item[0])}
    if isinstance(value, list):
        return [_canonical(child, path) for child in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
